-- library.lua - LuaSocket's own modules in Lua (http, smtp, ftp, url, ltn12...) and LuaSec's https, as they are
-- installed, over our sockets. Those that use sockets are loaded once more, for us alone, with a `require` that
-- gives them ours; those that do not are the ones that everybody has.

local library = {}

-- What is ours alone, and what is shared.
local private = {
  http = "socket.http", smtp = "socket.smtp", ftp = "socket.ftp", tp = "socket.tp", https = "ssl.https",
}
local shared = {
  url = "socket.url", headers = "socket.headers", ltn12 = "ltn12", mime = "mime", mbox = "mbox",
}

local function missing(name, reason)
  local whose = name == "ssl.https" and "LuaSec, which is not installed (Debian: lua-sec; LuaRocks: luasec)"
    or "LuaSocket, which is not installed (Debian: lua-socket; LuaRocks: luasocket)"
  error(("asynctask.socket: '%s' comes with %s\n%s"):format(name, whose, reason), 0)
end

local function load_shared(name)
  local ok, value = pcall(require, name)
  if not ok then
    missing(name, value)
  end
  return value
end

---A function that loads LuaSocket's modules for `socket`.
---@param socket table
---@return fun(name: string): any
function library.loader(socket)
  local loaded = { socket = socket, ["socket.core"] = socket }
  local names = {}
  for _, name in pairs(private) do
    names[name] = true
  end

  local function load_private(name)
    if loaded[name] ~= nil then
      return loaded[name]
    elseif name == "ssl" then
      return require "asynctask.ssl"
    elseif not names[name] then
      return require(name)
    end
    local path, reason = package.searchpath(name, package.path)
    if not path then
      missing(name, reason)
    end
    local chunk = assert(loadfile(path, "t", setmetatable({ require = nil }, {
      __index = function(_, key)
        if key == "require" then
          return load_private
        end
        return _G[key]
      end,
      __newindex = _G,
    })))
    local value = chunk(name, path)
    loaded[name] = value == nil or value
    return loaded[name]
  end
  loaded.require = load_private
  return load_private
end

---Makes the modules fields of `socket`, each loaded at its first use.
---@param socket table
function library.add(socket)
  local load_private = library.loader(socket)
  setmetatable(socket, {
    __index = function(self, key)
      local value
      if private[key] then
        value = load_private(private[key])
      elseif shared[key] then
        value = load_shared(shared[key])
      end
      if value ~= nil then
        rawset(self, key, value)
      end
      return value
    end,
  })
end

---Those that hold the `socket` they were loaded with.
library.bound = { "socket.http", "socket.smtp", "socket.ftp", "socket.tp", "ssl.https" }

return library
