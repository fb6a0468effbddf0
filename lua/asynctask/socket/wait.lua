-- wait.lua - LuaSocket's two timeouts, and waiting for a socket under them. A state has `block` and
-- `total` (seconds, below 0: none) and `start`, when the call began. One task at a time waits for the
-- same direction of a socket.

local core = require "asynctask.core"
local check = require "asynctask.socket.check"

local await, try, now, cancelling = core.await, core.try, core.now, core.cancelling
local ready, poll, getfd, close = core.socket.ready, core.socket.poll, core.socket.getfd, core.socket.close

local NOTHING = core.from_result()

local wait = {}

---The fields of a new state.
---@param state table
---@return table state
function wait.init(state)
  state.block, state.total, state.start = -1, -1, 0
  return state
end

---Begins a call: raises the cancellation of the scope it is in (S10), gives way after many calls in a row
---that did not wait (S2), and marks when it began.
---@param state table
function wait.begin(state)
  if cancelling() then
    await(core.delay(0))
  end
  await(NOTHING)
  state.start = now()
end

---The same for calls without timeouts.
function wait.point()
  if cancelling() then
    await(core.delay(0))
  end
  await(NOTHING)
end

-- The seconds that are left; below 0: no limit. With a total timeout the block one counts from now,
-- else from the beginning of the call: as LuaSocket does it.
local function left(state)
  local block, total = state.block, state.total
  if total < 0 then
    if block < 0 then
      return -1
    end
    local rest = block - (now() - state.start)
    return rest > 0 and rest or 0
  end
  local rest = total - (now() - state.start)
  if rest < 0 then
    rest = 0
  end
  return block >= 0 and block < rest and block or rest
end

-- What holds while a task waits: nobody else waits for the same direction, and a send that is cancelled
-- when a part is out closes the socket (S10).
local guard = {
  __close = function(hold, err)
    local state = hold.state
    state[hold.direction] = nil
    if err ~= nil and hold.half then
      (hold.close or close)(hold.socket)
    end
  end,
}

---Holds a direction until the scope is left: a value for `<close>`.
---@param socket any
---@param state table
---@param direction "receiving"|"sending"
---@param half? boolean a part of what is sent is out: an error then closes the socket
---@param close_it? fun(socket: any) how
---@return table
function wait.hold(socket, state, direction, half, close_it)
  state[direction] = true
  return setmetatable({ socket = socket, state = state, direction = direction, half = half, close = close_it }, guard)
end

local directions = { r = "receiving", w = "sending", rw = "sending" }

---Raises when another task waits for this direction.
---@param state table
---@param events "r"|"w"
function wait.check(state, events)
  local direction = directions[events]
  if state[direction] then
    check.raise(("another task is %s on this socket"):format(direction))
  end
end

wait.left = left

-- nil when it is ready, or why not
local function until_ready(socket, events, seconds)
  if seconds == 0 then
    local found = poll({ getfd(socket) }, { events })
    return not (found and found[1]) and "timeout" or nil
  end
  local t = ready(socket, events)
  local open, err
  if seconds < 0 then
    open = await(t)
  else
    open, err = try(t:timeout(seconds))
    if open == nil then
      if err.code == "ETIMEDOUT" and err.op == "timeout" then
        return "timeout"
      end
      error(err, 0)
    end
  end
  return not open and "closed" or nil
end

---Waits until the socket is ready.
---@param socket userdata
---@param state table
---@param events "r"|"w"
---@param half? boolean a part of what is sent is out
---@return "timeout"|"closed"|nil why not
function wait.ready(socket, state, events, half)
  if state.block == 0 then
    return "timeout"
  end
  local _ <close> = wait.hold(socket, state, directions[events], half)
  return until_ready(socket, events, left(state))
end

---@param state table
---@param seconds number
---@param mode string
function wait.set(state, seconds, mode)
  if mode == "b" then
    state.block = seconds + 0.0
  else
    state.total = seconds + 0.0
  end
end

return wait
