-- asynctask.signal - waiting for signals of the process. A handler is installed only while somebody
-- waits, and what was installed before is put back (csrc/io/signal.c).

local core = require "asynctask.core"
local iterator = require "asynctask.iterator"

local watching = core.signal

local signal = {}

---Waits for the next signal of this name; one that came before is not seen. Several tasks may wait
---for the same signal: all are told.
---@param name string "SIGTERM", "SIGINT", "SIGHUP"...; SIGKILL and SIGSTOP cannot be caught
---@return asynctask.Task name
function signal.wait(name)
  return watching.wait(name)
end

---Visits a signal each time it comes: `for name in signal.each "SIGHUP" do`. What comes while the
---loop's body runs is kept; several of one kind count as one. The signal is watched from this call
---until the loop is left.
---@param name string as for `wait`
---@return asynctask.Iterator iterator
---@return nil
---@return nil
---@return asynctask.Iterator
function signal.each(name)
  local watch = watching.watch(name)
  return iterator.new(function()
    return watch:next()
  end, function()
    watch:close()
  end)
end

return signal
