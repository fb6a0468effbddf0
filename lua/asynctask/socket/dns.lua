-- dns.lua - LuaSocket's `socket.dns`. Names are looked up on the pool for blocking calls.

local core = require "asynctask.core"
local address = require "asynctask.socket.address"
local check = require "asynctask.socket.check"
local wait = require "asynctask.socket.wait"

local try = core.try

local dns = {}

-- The words for failures of gethostbyname.
local host_words = {
  EAI_NONAME = "host not found",
  EAI_AGAIN = "Host name lookup failure",
  EAI_FAIL = "Unknown server error",
  EAI_NODATA = "No address associated with name",
}

local function entry(host)
  wait.point()
  local found, err = try(core.net.host_entry(host))
  if not found then
    return nil, host_words[err.code] or err.message
  end
  return found
end

---The first IPv4 address of a host, and all that is known of it.
---@param host string name or address
---@return string? ip
---@return table|string resolved `{name=, alias={}, ip={}}`, or an error
function dns.toip(host)
  local found, err = entry(check.text(host, 1, "toip"))
  if not found then
    return nil, err
  end
  return found.ip[1], found
end

---The name of a host.
---@param host string name or address
---@return string? name
---@return table|string resolved or an error
function dns.tohostname(host)
  local found, err = entry(check.text(host, 1, "tohostname"))
  if not found then
    return nil, err
  end
  return found.name, found
end

local families = { ipv4 = "inet", ipv6 = "inet6" }

---All addresses of a host.
---@param host string
---@return table[]? list `{family="inet"|"inet6", addr=}`
---@return string? err
function dns.getaddrinfo(host)
  host = check.text(host, 1, "getaddrinfo")
  wait.point()
  local found, err = address.look_up(host)
  if not found then
    return nil, err
  end
  local list = {}
  for i, one in ipairs(found) do
    list[i] = { family = families[one.family], addr = one.host }
  end
  return list
end

---The names of a host's addresses, and of a service.
---@param host? string
---@param service? string|number
---@return string[]? names
---@return string? service or err
function dns.getnameinfo(host, service)
  host = host ~= nil and check.text(host, 1, "getnameinfo") or nil
  service = service ~= nil and check.text(service, 2, "getnameinfo") or nil
  if not (host or service) then
    check.raise("host and serv cannot be both nil")
  end
  wait.point()
  local found, err = address.look_up(host or "127.0.0.1", service)
  if not found then
    return nil, err
  end
  local names, service_name = {}, nil
  for i, one in ipairs(found) do
    local name, its_service = try(core.net.lookup(one.host, one.port))
    names[i] = host and (name or one.host) or nil
    service_name = name and its_service or tostring(one.port)
  end
  if service then
    return names, service_name
  end
  return names
end

---@return string? name of this machine
---@return string? err
function dns.gethostname()
  return core.socket.hostname()
end

return dns
