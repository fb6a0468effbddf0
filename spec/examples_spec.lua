-- The programs in examples/: each runs as it stands and ends by itself; the tour agrees with plain Lua
-- on a small tree, and says when it does not.

local child = require("spec.support.child")
local fs = require("asynctask.fs")

local await = require("asynctask").await

--- A directory with a few texts, one file that is none, and a link; removed when the spec ends.
local function tree(finally)
  local dir = await(fs.mkdtemp())
  finally(function()
    await(fs.remove(dir, { recursive = true }))
  end)
  await(fs.mkdir(dir .. "/sub/deep it's", { parents = true }))
  await(fs.write_file(dir .. "/one.txt", ("the quick brown fox\n"):rep(30)))
  await(fs.write_file(dir .. "/sub/two.txt", "The lazy dog, the singing dog\n"))
  await(fs.write_file(dir .. "/sub/deep it's/three.txt", "buzz unseen likeness\n"))
  await(fs.write_file(dir .. "/sub/binary", "no\0text"))
  await(fs.write_file(dir .. "/empty", ""))
  await(fs.symlink("one.txt", dir .. "/link"))
  return dir
end

local function tour(dir, options)
  options = options or {}
  options.args = { dir }
  return child.lua(child.root .. "/examples/tour.lua", options)
end

describe("examples/tour.lua", function()
  it("counts the words of a tree as plain Lua does, and exits with 0", function()
    local dir = tree(finally)
    local output, code = tour(dir)
    assert.are.equal(0, code, output)
    -- 30 * 4 + 6 + 3 words in three files
    assert.matches("read 3 files, ", output, 1, true)
    assert.matches("129 words, 10 different ones", output, 1, true)
    assert.matches("ing%$ +singing 1\n", output)
    assert.matches("ness%$ +likeness 1\n", output)
    assert.matches("Both results agree.", output, 1, true)
  end)

  it("answers all clients but the one that is too slow for its deadline", function()
    local output = tour(tree(finally))
    local after = tonumber(output:match("%(slow one%) +after ([%d.]+) s: timeout: .*%(ETIMEDOUT%)"))
    assert.is_truthy(after, output)
    assert.is_true(after >= 0.25)
    assert.matches("answer 8 clients", output, 1, true)
  end)

  it("prints the times of each part in both ways", function()
    local output = tour(tree(finally))
    local parts = { "walk the directory", "read 3 files", "count their words", "answer 8 clients", "together" }
    for _, part in ipairs(parts) do
      assert.matches(part .. ".- [%d.]+ s +[%d.]+ s +[%d.]+ x\n", output)
    end
  end)

  it("shows lines in place of a bar when its output is no terminal", function()
    local output = tour(tree(finally))
    assert.matches("counting on all cores +100 %%\n", output)
    assert.is_nil(output:find("\r", 1, true))
  end)

  it("tours an empty directory", function()
    local dir = await(fs.mkdtemp())
    finally(function()
      await(fs.remove(dir, { recursive = true }))
    end)
    local output, code = tour(dir)
    assert.are.equal(0, code, output)
    assert.matches("0 words, 0 different ones", output, 1, true)
  end)

  it("exits with 1 when the two results differ", function()
    -- A `find` of our own, which finds a file that is not there.
    local dir, bin = tree(finally), await(fs.mkdtemp())
    finally(function()
      await(fs.remove(bin, { recursive = true }))
    end)
    await(fs.write_file(bin .. "/find", ("#!/bin/sh\nprintf '%%s\\0' '%s/LICENSE'\n"):format(child.root)))
    await(fs.chmod(bin .. "/find", 493))
    local output, code = tour(dir, { env = { PATH = bin .. ":" .. os.getenv("PATH") } })
    assert.are.equal(1, code, output)
    assert.matches("DISAGREE: only one of them found " .. child.root .. "/LICENSE", output, 1, true)
  end)

  it("exits with 1 and names a directory that does not exist", function()
    local output, code = tour("/nonexistent-dir")
    assert.are.equal(1, code)
    assert.matches("realpath /nonexistent-dir: no such file or directory (ENOENT)", output, 1, true)
  end)
end)

describe("examples", function()
  it("echo_server.lua serves its clients and closes", function()
    local output, code = child.lua(child.root .. "/examples/echo_server.lua", { args = { "2" } })
    assert.are.equal(0, code, output)
    for name = 1, 2 do
      for i = 1, 3 do
        assert.matches(("client %d says %d\n"):format(name, i), output, 1, true)
      end
    end
    assert.matches("closed\n$", output)
  end)

  it("fan_out.lua gives results in order, the first, and as they come", function()
    local output, code = child.lua(child.root .. "/examples/fan_out.lua", { args = { "1000" } })
    assert.are.equal(0, code, output)
    assert.are.equal("primes up to 1000: 168\nfastest mirror: near\nmapped: a1 b2 c3 d4 e5 f6 g7 h8 i9 j10\n"
      .. "answered: first\nanswered: second\nanswered: third\n", output)
  end)

  it("mandelbrot.lua writes a picture that is symmetric and black in the middle", function()
    local dir = await(fs.mkdtemp())
    finally(function() await(fs.remove(dir, { recursive = true })) end)
    local output, code = child.lua(child.root .. "/examples/mandelbrot.lua", { args = { dir .. "/m.ppm", "60", "40" } })
    assert.are.equal(0, code, output)
    assert.are.equal(dir .. "/m.ppm: 60 x 40\n", output)
    local picture = await(fs.read_file(dir .. "/m.ppm"))
    local header = "P6\n60 40\n255\n"
    assert.are.equal(header, picture:sub(1, #header))
    assert.are.equal(#header + 60 * 40 * 3, #picture)
    local function row(y) return picture:sub(#header + y * 180 + 1, #header + y * 180 + 180) end
    for y = 0, 19 do assert.are.equal(row(y), row(39 - y)) end
    assert.are.equal("\0\0\0", row(20):sub(39 * 3 + 1, 39 * 3 + 3)) -- about 0, 0
    assert.are_not.equal("\0\0\0", row(0):sub(1, 3))
  end)

  it("checksum_tree.lua gives the Adler-32 sums of a tree", function()
    local dir = await(fs.mkdtemp())
    finally(function() await(fs.remove(dir, { recursive = true })) end)
    await(fs.mkdir(dir .. "/sub"))
    await(fs.write_file(dir .. "/a", "Wikipedia")) -- a sum that is known
    await(fs.write_file(dir .. "/sub/b", ""))
    await(fs.write_file(dir .. "/sub/c", ("x"):rep(100000)))
    local output, code = child.lua(child.root .. "/examples/checksum_tree.lua", { args = { dir } })
    assert.are.equal(0, code, output)
    assert.matches("11e60398  " .. dir .. "/a\n", output, 1, true)
    assert.matches("00000001  " .. dir .. "/sub/b\n", output, 1, true)
    assert.matches("\n%x+  3 files\n$", output)
  end)

  it("word_count.lua counts as plain Lua does", function()
    local dir = await(fs.mkdtemp())
    finally(function() await(fs.remove(dir, { recursive = true })) end)
    await(fs.write_file(dir .. "/a", "The cat and the dog.\n"))
    await(fs.write_file(dir .. "/b", ("the end "):rep(1000)))
    local output, code = child.lua(child.root .. "/examples/word_count.lua", { args = { dir .. "/a", dir .. "/b" } })
    assert.are.equal(0, code, output)
    assert.are.equal("  1002  the\n  1000  end\n     1  and\n     1  cat\n     1  dog\n", output)
  end)

  it("monte_carlo.lua throws every dart once, from all its jobs", function()
    local output, code = child.lua(child.root .. "/examples/monte_carlo.lua", { args = { "100003" } })
    assert.are.equal(0, code, output)
    local hit, pi = output:match("threw 100003 darts, (%d+) hit: pi is about ([%d.]+)\n$")
    assert.is_truthy(hit, output)
    assert.is_true(math.abs(tonumber(pi) - 4 * tonumber(hit) / 100003) < 0.001)
    assert.is_true(math.abs(tonumber(pi) - math.pi) < 0.05)
  end)
end)
