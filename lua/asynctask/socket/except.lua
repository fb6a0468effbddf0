-- except.lua - LuaSocket's `newtry`, `try` and `protect`. What `try` raises is a table of its own kind, which
-- `protect` turns into `nil, err` again. Everything else goes through as it is: errors, and a cancellation
-- that is aimed at a scope around. `protect` lets awaits through, as every protected call does.

local pack, unpack = table.pack, table.unpack

local except = {}

local failure = { __metatable = false }

-- What `try` has raised: with __metatable set, nothing else tells.
local failures = setmetatable({}, { __mode = "k" })

---A `try` that calls the finalizer before it raises.
---@param finalizer? function
---@return fun(...): ... try its arguments when the first is neither nil nor false; else raises the second
function except.newtry(finalizer)
  return function(...)
    if (...) then
      return ...
    end
    if finalizer ~= nil then
      finalizer()
    end
    local raised = setmetatable({ (select(2, ...)) }, failure)
    failures[raised] = true
    error(raised, 0)
  end
end

local function outcome(results)
  local err = results[2]
  if results[1] then
    return unpack(results, 2, results.n)
  elseif type(err) == "table" and failures[err] then
    return nil, err[1]
  end
  error(err, 0)
end

---The function, which gives `nil, err` for what `try` raises in it.
---@param f function
---@return function
function except.protect(f)
  return function(...)
    return outcome(pack(pcall(f, ...)))
  end
end

return except
