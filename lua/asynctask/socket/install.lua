-- install.lua - makes `require "socket"` mean asynctask.socket in this state, and undoes that. It touches
-- package.loaded and, when it is asked to, the global `coroutine`.

local library = require "asynctask.socket.library"

local install = {}

local NONE = {} -- stands for nil
local before    -- what was in package.loaded; nil: not installed
local lua_coroutine -- the global that was replaced

local function put(name, value)
  if before[name] == nil then
    local old = package.loaded[name]
    before[name] = old == nil and NONE or old
  end
  package.loaded[name] = value
end

---@param socket table
---@param unix table
---@param ssl? table
---@param generators? table the `coroutine` for everybody
function install.install(socket, unix, ssl, generators)
  if before then
    return
  end
  before = {}
  if generators then
    put("coroutine", generators)
    lua_coroutine, _G.coroutine = _G.coroutine, generators
  end
  put("socket", socket)
  put("socket.core", socket)
  put("socket.unix", unix)
  if ssl then
    put("ssl", ssl)
  end
  for _, name in ipairs(library.bound) do
    put(name, nil) -- loaded with other sockets: the next `require` loads it with these
  end
end

function install.uninstall()
  if not before then
    return
  end
  for name, old in pairs(before) do
    package.loaded[name] = old ~= NONE and old or nil
  end
  if lua_coroutine then
    _G.coroutine, lua_coroutine = lua_coroutine, nil
  end
  before = nil
end

return install
