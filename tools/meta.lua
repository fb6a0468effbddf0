-- Compares lua/asynctask/meta.lua, the annotations of what C registers, with what the built module
-- has registered, for `make lint`. Both ways: a function without annotation is an offence, and so is
-- an annotation without function.
--
--     lua5.4 tools/meta.lua          compares (LUA_PATH and LUA_CPATH lead to the build)
--     lua5.4 tools/meta.lua --list   prints what is registered, as the annotations would declare it
--
-- In meta.lua a class is `---@class NAME` followed by `local x = {}` (a method is then
-- `function x:f(...) end`, a function `function x.f(...) end`). The classes asynctask.core and
-- asynctask.core.SUB stand for the module's table and its subtables; every other class is the
-- metatable of that name. Metamethods need no annotation.

local PATH = "lua/asynctask/meta.lua"

local core = require("asynctask.core")

--- The table of methods behind a metatable: __index, or what an __index in C keeps as an upvalue.
local function methods_of(metatable)
  local index = metatable.__index
  if type(index) ~= "function" then return index end
  for i = 1, 255 do
    local name, value = debug.getupvalue(index, i)
    if not name then return nil end
    if type(value) == "table" and value ~= debug.getregistry()["asynctask.Task"] then return value end
  end
end

--- What is registered: class -> set of names.
local function registered()
  local found = { ["asynctask.core"] = {} }
  local task_methods = debug.getregistry()["asynctask.Task"].__index
  for name, value in pairs(core) do
    if type(value) == "table" and value ~= task_methods and not value.__name then -- no metatable
      local sub = {}
      for field, f in pairs(value) do
        if type(f) == "function" then sub[field] = true end
      end
      found["asynctask.core." .. name] = sub
    elseif type(value) == "function" then
      found["asynctask.core"][name] = true
    end
  end
  for name, metatable in pairs(debug.getregistry()) do
    local ours = type(name) == "string" and name:find("^asynctask")
    if ours and type(metatable) == "table" and metatable.__name == name then
      local methods = {}
      for method, f in pairs(methods_of(metatable) or {}) do
        if type(f) == "function" and debug.getinfo(f, "S").what == "C" then methods[method] = true end
      end
      if next(methods) then found[name] = methods end
    end
  end
  return found
end

--- What is annotated: class -> name -> line.
local function annotated()
  local file = assert(io.open(PATH))
  local found, classes, class, number = {}, {}, nil, 0
  for line in file:lines() do
    number = number + 1
    class = line:match("^%-%-%-@class%s+([%w_.]+)") or class
    local variable = line:match("^local%s+([%w_]+)%s*=%s*{}")
    if variable and class then
      classes[variable] = class
      found[class] = found[class] or {}
      class = nil
    end
    local owner, name = line:match("^function%s+([%w_]+)[.:]([%w_]+)%s*%(")
    if owner then
      if not classes[owner] then error(("%s:%d: %s belongs to no class"):format(PATH, number, owner), 0) end
      found[classes[owner]][name] = number
    end
  end
  file:close()
  return found
end

local function sorted(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

local actual = registered()

if arg[1] == "--list" then
  for _, class in ipairs(sorted(actual)) do
    print("---@class " .. class)
    for _, name in ipairs(sorted(actual[class])) do print("  " .. name) end
  end
  os.exit(0)
end

local offences = 0
local function offence(line, text)
  offences = offences + 1
  io.stderr:write(("%s:%d: %s\n"):format(PATH, line, text))
end

local described = annotated()
for _, class in ipairs(sorted(actual)) do
  for _, name in ipairs(sorted(actual[class])) do
    if not (described[class] and described[class][name]) then
      offence(1, ("%s: %s is registered and has no annotation"):format(class, name))
    end
  end
end
for _, class in ipairs(sorted(described)) do
  for _, name in ipairs(sorted(described[class])) do
    if not (actual[class] and actual[class][name]) then
      offence(described[class][name], ("%s: %s is annotated and not registered"):format(class, name))
    end
  end
end

if offences > 0 then
  io.stderr:write(("meta: %d offence(s)\n"):format(offences))
  os.exit(1)
end
print("meta: annotations and registered functions agree")
