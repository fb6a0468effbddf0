-- ours.lua URL COUNT - COUNT requests with asynctask.http, 100 in flight; prints how many a second.

local task = require "asynctask"
local http = require "asynctask.http"
local core = require "asynctask.core"

local await = task.await
local url, count = arg[1], math.tointeger(tonumber(arg[2]))

local function run(client, n)
  local left = n
  task.with_group(function(g)
    for _ = 1, 100 do
      g:spawn(function()
        while left > 0 do
          left = left - 1
          assert(#await(client:get_string(url)) > 0)
        end
      end)
    end
  end)
end

task.main(function()
  local client <close> = http.client()
  run(client, count // 10)
  local began = core.now()
  run(client, count)
  print("rate " .. count / (core.now() - began))
end)
