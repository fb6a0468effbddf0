-- The pages in docs/: every ```lua block runs as it stands, in a process and a directory of its own, and
-- prints what its `-->` comments say. A block after `<!-- not run -->` is left out. Blocks that do
-- not load the library themselves begin with PRELUDE, which the pages show. Links lead somewhere.

local child = require("spec.support.child")
local fs = require("asynctask.fs")
local task = require("asynctask")

local await = task.await

local PRELUDE = 'local task = require "asynctask" local fs = require "asynctask.fs" '
  .. 'local net = require "asynctask.net" local await = task.await '

local function pages()
  local list = {}
  for name in fs.dir(child.root .. "/docs") do
    if name:find("%.md$") then list[#list + 1] = name end
  end
  table.sort(list)
  return list
end

--- The blocks of a page: source, line of the first line of code, what it is to print or nil.
local function blocks(text)
  local found, block, number, skip = {}, nil, 0, false
  for line in text:gmatch("([^\n]*)\n") do
    number = number + 1
    if block and line == "```" then
      block.source = table.concat(block, "\n") .. "\n"
      if not block.skip then found[#found + 1] = block end
      block, skip = nil, false
    elseif block then
      block[#block + 1] = line
      local expected = line:match("%-%-> ?(.*)$")
      if expected then block.prints = (block.prints or "") .. expected .. "\n" end
    elseif line == "```lua" then
      block = { line = number + 1, skip = skip }
    elseif line:find("^<!%-%- not run") then
      skip = true
    elseif line ~= "" then
      skip = false
    end
  end
  return found
end

--- Runs one in a directory with two small files.
local function run(block)
  local dir = await(fs.mkdtemp())
  await(fs.write_file(dir .. "/a.txt", "alpha"))
  await(fs.write_file(dir .. "/b.txt", "beta"))
  local source = block.source:find('require "asynctask"', 1, true) and block.source or PRELUDE .. block.source
  local output, code = child.lua(source .. " ", { directory = dir, timeout = 20 })
  await(fs.remove(dir, { recursive = true }))
  return output, code
end

for _, name in ipairs(pages()) do
  local text = await(fs.read_file(child.root .. "/docs/" .. name)) .. "\n"

  describe("docs/" .. name, function()
    for _, block in ipairs(blocks(text)) do
      -- ThreadSanitizer delays the signal that stops a runaway job.
      local runaway = block.source:find("while true do end", 1, true) and child.sanitizer() == "tsan"
      local it_runs = runaway and pending or it
      it_runs(("has a sample in line %d that does what it says"):format(block.line), function()
        local output, code = run(block)
        if code ~= 0 and output:find("(ENODEV)", 1, true) then
          pending("no terminals can be made here (/dev/pts is not mounted)")
        end
        assert.are.equal(0, code, output)
        assert.are.equal(block.prints or "", output)
      end)
    end

    it("has links that lead somewhere", function()
      for link in text:gmatch("%]%(([^)]+)%)") do
        local file = link:match("^[^#]*")
        if file ~= "" and not file:find("^https?:") then
          assert.is_true(await(fs.exists(child.root .. "/docs/" .. file)), link)
        end
      end
    end)
  end)
end

describe("docs", function()
  it("has a page index.md that links every other page", function()
    local index = await(fs.read_file(child.root .. "/docs/index.md"))
    for _, name in ipairs(pages()) do
      assert.is_true(name == "index.md" or index:find("](" .. name, 1, true) ~= nil, name)
    end
  end)

  it("describes every function of the facade and every method of Task in tasks.md", function()
    local text = await(fs.read_file(child.root .. "/docs/tasks.md"))
    for name, value in pairs(task) do
      if type(value) == "function" then
        assert.is_truthy(text:find("\n### [^\n]*`" .. name .. "[({]"), name)
      end
    end
    for name, value in pairs(getmetatable(task.delay(0)).__index) do
      if type(value) == "function" then
        assert.is_truthy(text:find("\n### [^\n]*`t:" .. name .. "%("), name)
      end
    end
  end)
end)
