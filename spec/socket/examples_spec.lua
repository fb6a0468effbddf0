-- The programs in examples/ that use LuaSocket's libraries run as they stand.

local child = require "spec.support.child"

describe("examples/redis_jobs.lua", function()
  it("does all jobs on one thread, and holds nobody up", function()
    local output, code = child.lua(child.root .. "/examples/redis_jobs.lua")
    assert.are.equal(0, code, output)
    if output:find("this needs", 1, true) then
      pending(output)
      return
    end
    assert.matches("^20 jobs done by %d workers on one thread\nthe ticker went on meanwhile\n$", output)
  end)
end)

describe("examples/many_http.lua", function()
  it("fetches twenty pages in the time of one", function()
    local output, code = child.lua(child.root .. "/examples/many_http.lua")
    assert.are.equal(0, code, output)
    if output:find("this needs", 1, true) then
      pending(output)
      return
    end
    local one, all = output:match("20 of 20 pages, %d+ bytes\none alone: ([%d.]+) s, all of them: ([%d.]+) s\n$")
    assert.is_truthy(one, output)
    assert.is_true(tonumber(all) < 5 * tonumber(one), output)
  end)
end)
