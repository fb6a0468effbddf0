-- The conformance suite of streams, for the pipes of processes and for terminals.

local task = require "asynctask"
local process = require "asynctask.process"
local tty = require "asynctask.tty"
local streams = require "spec.conformance.streams"

local await = task.await

streams(_ENV, "pipes of a process", function()
  local proc = await(process.spawn("cat"))
  await(proc.stderr:close())
  return proc.stdin, proc.stdout
end, { one_way = true })

streams(_ENV, "pipes of a process that was joined to another", function()
  local first = await(process.spawn("cat", {}, { stderr = "ignore" }))
  local second = await(process.spawn("cat", {}, { stdin = first.stdout, stderr = "ignore" }))
  await(first.stdout:close())
  return first.stdin, second.stdout
end, { one_way = true })

-- Only this side: a master that closes hangs up, and what it wrote last is discarded by the system.
streams(_ENV, "terminal, the program's side", function()
  local master, slave = task.try(tty.pair { raw = true })
  if not master and slave.code == "ENODEV" then
    pending("no terminals can be made here (/dev/pts is not mounted)")
  end
  assert(master, slave)
  return slave, master
end, { no_shutdown = true, text = true })
