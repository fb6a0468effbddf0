-- A temporary directory for a spec file: made before each spec, removed after it.

local fs = require "asynctask.fs"
local await, try = require("asynctask").await, require("asynctask").try

local sandbox = {}

--- Gives path(name), put(text, name) and get(name), and the hooks for before_each and after_each.
---@return fun(name: string?): string path
---@return fun(text: string, name: string?): string put
---@return fun(name: string?): string get
---@return fun() before
---@return fun() after
function sandbox.new()
  local dir

  local function path(name)
    return name and dir .. "/" .. name or dir .. "/file"
  end

  local function put(text, name)
    local f = assert(io.open(path(name), "wb"))
    assert(f:write(text))
    assert(f:close())
    return path(name)
  end

  local function get(name)
    local f = assert(io.open(path(name), "rb"))
    local text = f:read("a")
    f:close()
    return text
  end

  local function before()
    dir = await(fs.mkdtemp())
  end

  local function after()
    await(fs.remove(dir, { recursive = true }))
  end

  return path, put, get, before, after
end

--- The code of the error with which a Task faults, and the error.
function sandbox.code_of(t)
  local ok, err = try(t)
  assert(ok == nil, "the operation succeeded")
  return err.code, err
end

return sandbox
