-- names.lua - addresses of hosts, looked up with asynctask.net and given to curl with each request. Curl's own resolver
-- is a thread for each lookup, and a transfer that is cancelled meanwhile waits for that thread; ours does not, and
-- shares the runtime's pool. An answer is kept for KEEP seconds; requests for the same name share a lookup.

local core = require "asynctask.core"
local net = require "asynctask.net"

local await, now, spawn = core.await, core.now, core.spawn

local MANY = 1000 -- names that are known at once
local KEEP = 55 -- seconds, less than curl keeps what it is given

local Names = {}
Names.__index = Names

local names = {}

function names.new()
  return setmetatable({ known = {}, count = 0, asked = {} }, Names)
end

---Whether curl needs no lookup for it.
local function is_address(host)
  return host:find("^[%d.]+$") or host:sub(1, 1) == "[" or host:find("[^\33-\126]")
end

local function look_up(self, host)
  local list = {}
  for i, address in ipairs(await(net.resolve(host))) do
    list[i] = address.family == "ipv6" and "[" .. address.host .. "]" or address.host
  end
  local entry = { text = table.concat(list, ","), until_ = now() + KEEP }
  self.count = self.count + 1
  if self.count > MANY then -- forget them all: a crawler meets many hosts once
    self.known, self.count = {}, 1
  end
  self.known[host] = entry
  return entry
end

---The entry for CURLOPT_RESOLVE, or nil when there is nothing to look up. Waits; raises what `net.resolve` faults with.
---@param host string
---@param port string|integer
---@return string?
function Names:entry(host, port)
  if is_address(host) then
    return nil
  end
  local entry = self.known[host]
  if not entry or entry.until_ < now() then
    local t = self.asked[host]
    if not t then
      t = spawn(look_up, self, host)
      self.asked[host] = t
      if t:done() then
        self.asked[host] = nil
      else
        t:continue_with(function(done)
          done:error() -- those who asked may have gone
          self.asked[host] = nil
        end)
      end
    end
    entry = await(t)
  end
  return ("+%s:%s:%s"):format(host, port, entry.text)
end

return names
