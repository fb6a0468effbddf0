-- asynctask.loop - for hosts that have a main loop of their own: they drive the event loop step by step and are
-- never held up. The same from C is in asynctask.h. Follows libuv's guide to embedding (uv_backend_fd,
-- uv_backend_timeout), with a budget.

local core = require "asynctask.core"
local check = require "asynctask.check"

local native = core.loop

local loop = {}

local function seconds_of(name, v)
  if v ~= nil and (type(v) ~= "number" or v ~= v) then
    check.expect(type(v) == "number", 1, name, "seconds", v)
    check.bad(1, name, "seconds expected, got nan")
  end
  return v or -1
end

---Does what is ready and looks at what the system has to say; never blocks. Errors of tasks stay in their tasks.
---Raises inside a task or a callback of the loop, and where the loop is the host's own.
---@param budget? number seconds of work, kept to within one resume of a task; 0: one task; nil or negative: until
---  nothing is ready
---@return boolean more whether more is ready: call again soon
function loop.step(budget)
  return native.step(seconds_of("step", budget))
end

---Runs the loop, sleeping in it, until nothing is left to wait for or the time is over. Ctrl-C ends it.
---Raises where `step` does.
---@param seconds? number nil or negative: no limit
---@return boolean more whether there is still something to wait for
function loop.run(seconds)
  return native.run(seconds_of("run", seconds))
end

---A descriptor that is readable when `step` has something to do, for poll, epoll or kqueue. It is the loop's own:
---do not read or close it.
---@return integer? fd nil where the system has none
function loop.fd()
  return native.fd()
end

---How long the host may sleep if it watches the descriptor: 0 is not at all.
---@return number? seconds nil: until the descriptor is readable
function loop.timeout()
  return native.timeout()
end

---@return boolean alive whether a task is ready, or waits for something that can still happen
function loop.alive()
  return native.alive()
end

---Says whether the host drives the loop. If it does, an `await` on the main chunk raises at once instead of running
---the loop (S16). Raises for `false` where the loop is the host's own.
---@param on boolean
---@return boolean before how it was
function loop.drive(on)
  check.expect(type(on) == "boolean", 1, "drive", "boolean", on)
  return native.drive(on)
end

return loop
