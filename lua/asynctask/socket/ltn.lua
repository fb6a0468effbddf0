-- ltn.lua - LuaSocket's sources and sinks over sockets: functions that LTN12 pumps between. What they make can
-- be called and has `getfd` and `dirty`, so that `select` takes it.

local BLOCK <const> = 2048

local ltn = { BLOCKSIZE = BLOCK, sourcet = {}, sinkt = {} }

local function over(socket, call)
  return setmetatable({
    getfd = function()
      return socket:getfd()
    end,
    dirty = function()
      return socket:dirty()
    end,
  }, {
    __call = function(_, ...)
      return call(...)
    end,
  })
end

---A function that picks one of the table's by name ("default" when the first argument is no string) and calls it.
---@param choices table<string, function>
---@return fun(name: any, ...): any
function ltn.choose(choices)
  return function(name, a, b)
    if type(name) ~= "string" then
      name, a, b = "default", name, a
    end
    local f = choices[name]
    if not f then
      error("unknown key (" .. name .. ")", 3)
    end
    return f(a, b)
  end
end

ltn.sinkt["keep-open"] = function(socket)
  return over(socket, function(chunk)
    if chunk then
      return socket:send(chunk)
    end
    return 1
  end)
end

ltn.sinkt["close-when-done"] = function(socket)
  return over(socket, function(chunk)
    if chunk then
      return socket:send(chunk)
    end
    socket:close()
    return 1
  end)
end

ltn.sinkt.default = ltn.sinkt["keep-open"]

-- `owner` has the BLOCKSIZE, which programs may set.
local function by_length(owner)
  return function(socket, length)
    return over(socket, function()
      if length <= 0 then
        return nil
      end
      local chunk, err = socket:receive(math.min(owner.BLOCKSIZE, length))
      if err then
        return nil, err
      end
      length = length - #chunk
      return chunk
    end)
  end
end

local function until_closed(owner)
  return function(socket)
    local done = false
    return over(socket, function()
      if done then
        return nil
      end
      local chunk, err, partial = socket:receive(owner.BLOCKSIZE)
      if not err then
        return chunk
      elseif err ~= "closed" then
        return nil, err
      end
      socket:close()
      done = true
      return partial
    end)
  end
end

---Fills the module.
---@param socket table
function ltn.add(socket)
  socket.BLOCKSIZE, socket.choose = ltn.BLOCKSIZE, ltn.choose
  socket.sourcet, socket.sinkt = ltn.sourcet, ltn.sinkt
  ltn.sourcet["by-length"], ltn.sourcet["until-closed"] = by_length(socket), until_closed(socket)
  ltn.sourcet.default = ltn.sourcet["until-closed"]
  socket.source, socket.sink = ltn.choose(ltn.sourcet), ltn.choose(ltn.sinkt)
end

return ltn
