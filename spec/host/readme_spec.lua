-- What the README shows runs as it stands.

local child = require("spec.support.child")

local function read(name)
  local f = assert(io.open(child.root .. "/" .. name))
  local text = f:read("a")
  f:close()
  return text
end

describe("the README", function()
  local text = read("README.md")

  it("has an example that runs and does what its comments say", function()
    local source = text:match("```lua\n(.-)```")
    local output, code = child.lua(source, { directory = child.root })
    assert.equal(0, code, output)
    local function words(name) return select(2, read(name):gsub("%S+", "")) end
    assert.equal(("%d and %d words"):format(words("README.md"), words("LICENSE")), output:match("^[^\n]*"))
    assert.is_truthy(output:find("^[^\n]*\nfalse\t[^\n]*ETIMEDOUT[^\n]*\n$"), output)
  end)

  it("names only commands that exist, and files that exist", function()
    for target in text:gmatch("%./bootstrap (%l+)") do
      assert.is_truthy(read("Makefile"):find("\n" .. target .. ":", 1, true), target)
    end
    local links = 0
    for link in text:gmatch("%]%(([^)#]+)[^)]*%)") do
      if not link:find("^https?:") then
        links = links + 1
        local f = io.open(child.root .. "/" .. link)
        assert.is_truthy(f, link)
        f:close()
      end
    end
    assert.is_true(links > 0)
  end)
end)
