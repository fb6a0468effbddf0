-- Many requests: nothing leaks, neither memory nor descriptors, whether they succeed, fail or are cancelled.

local http = require "asynctask.http"
local task = require "asynctask"

if not pcall(require, "asynctask.curl") then
  describe("asynctask.http under load", function()
    pending("needs libcurl")
  end)
  return
end

local badweb = require "spec.support.badweb"
local child = require "spec.support.child"
local fs = require "asynctask.fs"
local nginx = require "spec.support.nginx"

local await = task.await

local function descriptors()
  local n = 0
  for _ in fs.dir "/proc/self/fd" do n = n + 1 end
  return n
end

local function memory() -- KiB
  collectgarbage()
  collectgarbage()
  local f = assert(io.open "/proc/self/status")
  local size = f:read("a"):match("VmRSS:%s*(%d+)")
  f:close()
  return tonumber(size)
end

--- Runs n calls of `f`, 100 at once.
local function hundred_at_once(n, f)
  task.with_group({ limit = 100 }, function(g)
    for i = 1, n do g:spawn(f, i) end
  end)
end

describe("asynctask.http under load", function()
  if not io.open("/proc/self/status") then
    pending("needs /proc")
    return
  end

  -- A leak grows with every round; what earlier specs left in the allocator does not.
  local function steady(rounds, f)
    f() -- warms up: connections, pools, the allocator
    local fds, before, grown = descriptors(), memory(), {}
    for i = 1, rounds do
      f()
      local now = memory()
      grown[i], before = now - before, now
    end
    assert.is_true(descriptors() <= fds + 2, ("%d descriptors, before %d"):format(descriptors(), fds))
    table.sort(grown)
    local usual = grown[math.max(1, rounds // 3)]
    if not child.sanitizer() then assert.is_true(usual < 1024, ("%d KiB more in a round"):format(usual)) end
  end

  it("10,000 requests with 100 in flight leave memory and descriptors as they were", function()
    if not nginx.available() then pending("nginx or openssl is not installed") end
    local server = nginx.start { ["hello.txt"] = "hello\n" }
    finally(function() server:stop() end)
    local client <close> = http.client()
    local url = server:url "hello.txt"
    steady(4, function()
      local right = 0
      hundred_at_once(2000, function(i)
        local text = i % 2 == 0 and await(client:get_string(url)) or await(await(client:get(url)):text())
        if text == "hello\n" then right = right + 1 end
      end)
      assert.are.equal(2000, right)
    end)
    assert.are.equal(0, client.native:running())
  end)

  it("nor do requests that are cancelled at any moment, or whose responses are dropped", function()
    badweb.each(function(r)
      if r.target == "/slow" then await(task.delay(0.004)) end
      return badweb.answer(200, ("x"):rep(r.target == "/big" and 300000 or 10))
    end, function(url)
      local client <close> = http.client()
      steady(5, function()
        hundred_at_once(300, function(i)
          local kind = i % 4
          if kind == 0 then
            local t = client:get_string(url .. "slow")
            await(task.delay(0.001 * (i % 7)))
            t:cancel()
            t:try()
          elseif kind == 1 then
            await(client:get(url .. "big")) -- and never looked at again
          elseif kind == 2 then
            local reply <close> = await(client:get(url .. "big"))
            await(reply:read(1000))
          else
            task.try(client:get_string(url .. "slow", { timeout = 0.002 }))
          end
        end)
        collectgarbage()
        collectgarbage()
        await(task.delay(0.01))
      end)
      assert.are.equal(0, client.native:running())
    end)
  end)

  it("nor do clients that come and go", function()
    badweb.each(function() return badweb.answer(200, "x") end, function(url)
      steady(5, function()
        for i = 1, 50 do
          local client = http.client()
          await(client:get_string(url))
          if i % 2 == 0 then client:close() end
        end
        collectgarbage()
        collectgarbage()
        await(task.delay(0.01))
      end)
    end)
  end)
end)
