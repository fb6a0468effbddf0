-- examples/crawl.lua and examples/download.lua run as they stand.

local child = require("spec.support.child")
local sandbox = require "spec.support.sandbox"

if not pcall(require, "asynctask.curl") then
  describe("examples of the HTTP client", function()
    pending("needs libcurl")
  end)
  return
end

describe("examples of the HTTP client", function()
  local path, _, _, before, after = sandbox.new()
  before_each(before)
  after_each(after)

  it("crawl.lua visits every page once, and notes those that are missing", function()
    local output, code = child.lua(child.root .. "/examples/crawl.lua", { directory = path "." })
    assert.are.equal(0, code, output)
    assert.matches("\n100 pages, %d+ KiB\n", output)
    local fetched, failures = output:match("\n(%d+) pages, %d+ bytes, (%d+) failures\n")
    assert.is_truthy(fetched, output)
    assert.are.equal(200, tonumber(fetched) + tonumber(failures))
    assert.matches("\n  GET http://127%.0%.0%.1:%d+/13: status 404 %(EHTTP%)\n", output)
    assert.is_nil(output:find("elsewhere", 1, true))
  end)

  it("crawl.lua keeps its delay between requests to a host", function()
    local core = require "asynctask.core"
    local began = core.now()
    local output, code = child.lua(child.root .. "/examples/crawl.lua",
      { args = { "http://127.0.0.1:1/", "1", "0.3" } })
    assert.are.equal(0, code, output)
    assert.matches("0 pages, 0 bytes, 1 failures\n  GET http://127.0.0.1:1/: .*ECONNREFUSED", output)
    assert.is_true(core.now() - began >= 0.3)
  end)

  it("download.lua shows its progress and ends with the whole file", function()
    local output, code = child.lua(child.root .. "/examples/download.lua", { directory = path "." })
    assert.are.equal(0, code, output)
    assert.matches("sample.bin: %d+ %%\n", output)
    assert.matches("sample.bin: 100 %%\nsample.bin: done, 1000008 bytes\n$", output)
  end)

  it("download.lua fails when one of its downloads does", function()
    local output, code = child.lua(child.root .. "/examples/download.lua",
      { directory = path ".", args = { "http://nowhere.invalid/a" } })
    assert.are.equal(1, code)
    assert.matches("nowhere.invalid: .*EAI_NONAME", output)
    assert.matches("1 of the downloads failed", output)
  end)
end)
