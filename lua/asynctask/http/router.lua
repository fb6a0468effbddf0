-- router.lua - which handler answers which method and path. A router is a handler itself. The tree of its routes is
-- in routes.lua.

local core = require "asynctask.core"
local check = require "asynctask.check"
local routes = require "asynctask.http.routes"

local find, place = routes.find, routes.place

local M = {}

---Chooses a handler by method and path, and calls it with `req.params` set. A router can be called like a handler.
---@class asynctask.http.Router
---@overload fun(req: asynctask.http.Request): ...
local Router = {}

local meta = { __name = "asynctask.http.Router", __index = Router }

if core.par then
  core.par.class(meta.__name, meta) -- a router is copied to the threads of a server (S19)
end

-- ---- answering -----------------------------------------------------------------------------------

local function allow(handlers)
  local list, has = {}, { OPTIONS = true, HEAD = handlers.GET and true or nil }
  for method in pairs(handlers) do
    has[method] = true
  end
  for method in pairs(has) do
    list[#list + 1] = method
  end
  table.sort(list)
  return { allow = table.concat(list, ", ") }
end

local function not_found()
  return 404, { ["content-type"] = "text/plain; charset=utf-8" }, "not found\n"
end

local function not_allowed(handlers, method)
  if method == "OPTIONS" then
    return 204, allow(handlers)
  end
  local headers = allow(handlers)
  headers["content-type"] = "text/plain; charset=utf-8"
  return 405, headers, "method not allowed\n"
end

-- What a mounted handler sees as its path; the request is put back when it has answered.
local function call_mounted(mounted, rest, req)
  local function back(path, ...)
    req.path = path
    return ...
  end
  local path = req.path
  req.path = "/" .. rest
  return back(path, mounted(req))
end

-- What the path says, beside what a router around this one has found.
local function set_params(req, names, values)
  local params = {}
  for name, value in pairs(req.params or {}) do
    params[name] = value
  end
  for i, name in ipairs(names) do
    params[name] = values[i]
  end
  req.params = params
end

local function route(root, fallback, req)
  local parts, values = {}, {}
  for part in req.path:gmatch("/([^/]*)") do
    parts[#parts + 1] = part
  end
  if req.path == "*" and req.method == "OPTIONS" then
    return 204
  end
  local leaf = find(root, parts, 1, values, 0)
  if not leaf then
    return fallback(req)
  elseif leaf.mounted then
    set_params(req, leaf.names, values)
    return call_mounted(leaf.mounted, leaf.below and values[#leaf.names + 1] or "", req)
  end
  local handlers, method = leaf.handlers, req.method
  local handler = handlers[method] or method == "HEAD" and handlers.GET
  if not handler then
    return not_allowed(handlers, method)
  end
  set_params(req, leaf.names[handlers[method] and method or "GET"], values)
  return handler(req)
end

-- Calls the i-th middleware, which calls the next one.
local function run(self, i, req)
  local middleware = self.middleware[i]
  if not middleware then
    return route(self.root, self.fallback or not_found, req)
  end
  return middleware(req, function(changed)
    return run(self, i + 1, changed or req)
  end)
end

-- ---- the object ----------------------------------------------------------------------------------

-- Raises unless it is one.
local function check_handler(handler, arg, name)
  check.expect(check.callable(handler), arg, name, "function", handler)
end

-- Adds a route for `name`, whose argument `arg` is the path.
local function add(self, name, arg, method, path, handler)
  check_handler(handler, arg + 1, name)
  local node, kind, names = place(self.state.root, path, name, arg)
  node[kind] = node[kind] or { handlers = {}, names = {} }
  local leaf = node[kind]
  if leaf.mounted or leaf.handlers[method] then
    check.bad(arg, name, ("there is a route for %s %s already"):format(method, path))
  end
  leaf.handlers[method], leaf.names[method] = handler, names
  return self
end

---Adds a route. In the path `:name` stands for one part that is not empty, `*name` at the end for all that is
---left; they are in `req.params`, decoded. Of several that fit, text goes before `:name`, and that before
---`*name`. A handler for GET answers HEAD, too; OPTIONS and other methods of a path that exists are answered
---without one (204, 405, both with Allow).
---@param method string "GET" and its like, in capitals
---@param path string
---@param handler fun(req: asynctask.http.Request): ...
---@return asynctask.http.Router self
function Router:on(method, path, handler)
  check.expect(type(method) == "string" and method:find("^[%w-]+$"), 1, "on", "method", method)
  return add(self, "on", 2, method, path, handler)
end

for _, method in ipairs { "get", "post", "put", "patch", "delete" } do
  Router[method] = function(self, path, handler)
    return add(self, method, 1, method:upper(), path, handler)
  end
end

---Adds a function around everything that this router answers, 404 included: `f(req, next)` returns what `next()`, or
---`next(another_request)`, returned, or something else. The first that was added is the outermost.
---@param f fun(req: asynctask.http.Request, next: function): ...
---@return asynctask.http.Router self
function Router:use(f)
  check_handler(f, 1, "use")
  table.insert(self.state.middleware, f)
  return self
end

---Hands a path and everything below it to another handler (a router, `http.files`, a function), which sees the rest of
---it in `req.path`. The prefix may have parameters.
---@param prefix string "/static"
---@param handler fun(req: asynctask.http.Request): ...
---@return asynctask.http.Router self
function Router:mount(prefix, handler)
  check_handler(handler, 2, "mount")
  local node, kind, names = self.state.root, "leaf", {}
  if prefix ~= "/" then
    node, kind, names = place(self.state.root, prefix, "mount", 1)
  end
  if kind == "rest" or node.rest or node.leaf then
    check.bad(1, "mount", ("there is a route for '%s' already, or it ends in *name"):format(prefix))
  end
  node.rest = { mounted = handler, names = names, below = true }
  node.leaf = { mounted = handler, names = names }
  return self
end

---A new router for everything below a path, with functions of its own around it (`use`).
---@param prefix string
---@param f? fun(group: asynctask.http.Router) is called with it
---@return asynctask.http.Router group
function Router:group(prefix, f)
  check.expect(f == nil or check.callable(f), 2, "group", "function", f)
  local group = M.router()
  self:mount(prefix, group)
  if f then
    f(group)
  end
  return group
end

function meta.__call(self, req)
  return run(self.state, 1, req)
end

---Makes a router.
---@param opts? { not_found?: fun(req: asynctask.http.Request): ... } what answers where no route fits
---@return asynctask.http.Router
function M.router(opts)
  opts = check.options(opts, 1, "router", { not_found = check.callable })
  return setmetatable({
    state = { root = { parts = {} }, middleware = {}, fallback = opts.not_found },
  }, meta)
end

return M
