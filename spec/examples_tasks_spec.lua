-- The programs in examples/ that show groups, channels and a graceful shutdown: each runs as it stands.

local child = require("spec.support.child")
local fs = require("asynctask.fs")

local await = require("asynctask").await

describe("examples", function()
  it("crawl_fanout.lua keeps its limit, notes what fails, and goes on", function()
    local output, code = child.lua(child.root .. "/examples/crawl_fanout.lua", { args = { "40", "4" } })
    assert.are.equal(0, code, output)
    assert.matches("^%d+ pages, at most 4 at once\n", output)
    assert.matches("  page 13: fetch: not found %(ENOENT%)\n", output)
    assert.matches("  page 17: timeout: the deadline has passed %(ETIMEDOUT%)\n", output)
  end)

  it("pipeline.lua counts as plain Lua does, and holds no more than its channels do", function()
    local path = child.root .. "/examples/pipeline.lua"
    local output, code = child.lua(path, { args = { child.root .. "/LICENSE" } })
    assert.are.equal(0, code, output)
    local total, counts, different = 0, {}, 0
    for word in await(fs.read_file(child.root .. "/LICENSE")):lower():gmatch("%a+") do
      total = total + 1
      if not counts[word] then different = different + 1 end
      counts[word] = (counts[word] or 0) + 1
    end
    local words, kinds, most = output:match("^(%d+) words, (%d+) different; never more than (%d+) waiting\n")
    assert.are.same({ tostring(total), tostring(different) }, { words, kinds })
    assert.is_true(tonumber(most) <= 16)
    for n, word in output:gmatch("\n +(%d+) (%a+)") do assert.are.equal(counts[word], tonumber(n)) end
  end)

  it("pipeline.lua ends with the error of its first stage", function()
    local output, code = child.lua(child.root .. "/examples/pipeline.lua", { args = { "/nonexistent" } })
    assert.are.equal(1, code)
    assert.matches("/nonexistent: no such file or directory %(ENOENT%)", output)
  end)

  it("graceful.lua: Ctrl-C stops it after its clean-up, which awaits", function()
    local dir = await(fs.mkdtemp())
    finally(function() await(fs.remove(dir, { recursive = true })) end)
    local out = child.quote(dir .. "/out")
    local _, code = child.lua(child.root .. "/examples/graceful.lua", {
      args = { dir .. "/state" },
      timeout = 30,
      -- Ctrl-C when it has worked for a while; the process that gets the signal hands it on.
      before = "(for i in $(seq 500); do grep -q 'job 10' " .. out .. " && break; sleep 0.02; done; kill -INT $$)"
        .. " >/dev/null 2>&1 & exec >" .. out .. ";",
    })
    local output = await(fs.read_file(dir .. "/out"))
    assert.are.equal(130, code, output)
    assert.matches("^started", output)
    assert.matches("worker 1: stops after %d+ jobs\n", output)
    assert.matches("worker 2: stops after %d+ jobs\n", output)
    local saved = tonumber(output:match("saved (%d+) jobs\n$"))
    assert.is_true(saved >= 1, output)
    local _, lines = await(fs.read_file(dir .. "/state")):gsub("\n", "")
    assert.are.equal(saved, lines)
    assert.is_nil(output:find("traceback", 1, true))
  end)
end)
