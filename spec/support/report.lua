-- busted's output handler for this suite: one line a file, then every failure with its place, then
-- "N passed, N failed". It also checks after each spec, when the spec's own after_each functions
-- have run, that the runtime has nothing left alive; a spec that leaves something has failed.

local busted = require("busted")
local core = require("asynctask.core")
local task = require("asynctask")

local KINDS = { "tasks", "operations", "timers", "externals", "handles" }
local PATIENCE = 2.0 -- seconds that closing handles and cancelled requests have to go
local SLOW = 2.0     -- seconds after which a spec is named

local write = function(...)
  io.stdout:write(...)
  io.stdout:flush()
end

-- What earlier specs left, and have been blamed for.
local known = {}

--- What is alive beyond that, as text, or nil when nothing is.
local function leftovers()
  collectgarbage()
  collectgarbage()
  local census, found = core.census(), {}
  for _, kind in ipairs(KINDS) do
    local count = census[kind] or 0
    known[kind] = math.min(known[kind] or 0, count)
    if count > known[kind] then found[#found + 1] = ("%d %s"):format(count - known[kind], kind) end
  end
  return found[1] and table.concat(found, ", ")
end

--- Names of the tasks that are alive, for the message.
local function names()
  local ok, list = pcall(task.tasks)
  if not ok or type(list) ~= "table" then return "" end
  local lines = {}
  for _, entry in ipairs(list) do
    if type(entry) == "table" then
      local fields = {}
      for key, value in pairs(entry) do fields[#fields + 1] = ("%s = %s"):format(tostring(key), tostring(value)) end
      table.sort(fields)
      lines[#lines + 1] = "  " .. table.concat(fields, ", ")
    else
      lines[#lines + 1] = "  " .. tostring(entry)
    end
  end
  return lines[1] and "\n" .. table.concat(lines, "\n") or ""
end

local function blamed()
  local census = core.census()
  for _, kind in ipairs(KINDS) do known[kind] = census[kind] or 0 end
end

--- Lets the loop turn until nothing is left, for PATIENCE seconds at most.
local function settle()
  local deadline = busted.monotime() + PATIENCE
  local pause = 0
  local left = leftovers()
  while left and busted.monotime() < deadline do
    local ok, problem = pcall(function() task.await(task.delay(pause)) end)
    if not ok then return left .. " (and the loop does not turn: " .. tostring(problem) .. ")" end
    pause = 0.002
    left = leftovers()
  end
  return left
end

return function()
  local handler = {}
  local passed, failed, skipped = 0, 0, 0
  local failures, pendings = {}, {}
  local notes = {} -- element -> why it is pending
  local current    -- the spec whose after_each functions run now

  local function full_name(element)
    local list = {}
    local e = element
    while e and e.descriptor ~= "file" and (e.name or e.descriptor) and e.descriptor ~= "suite" do
      table.insert(list, 1, tostring(e.name or e.descriptor))
      e = busted.parent(e)
    end
    return table.concat(list, " > ")
  end

  local function place(element, trace)
    local t = trace or element.trace
    return t and t.short_src and ("%s:%s: "):format(t.short_src, tostring(t.currentline)) or ""
  end

  local function fail(element, message, trace)
    failures[#failures + 1] = {
      title = place(element, element.trace or trace) .. full_name(element),
      message = tostring(message),
      traceback = trace and trace.traceback,
    }
  end

  local function finish(outcome)
    if outcome == "success" then
      passed = passed + 1
      write("+")
    elseif outcome == "pending" then
      skipped = skipped + 1
      write(".")
    else
      failed = failed + 1
      write("-")
    end
  end

  --- Ends the spec that ran last: its outcome, and what it left.
  local function conclude()
    local spec = current
    if not spec then return end
    current = nil
    local left = settle()
    if left then
      spec.outcome = "failure"
      busted.publish({ "failure", "it" }, spec.element, busted.parent(spec.element),
        "left alive: " .. left .. names(), {})
      blamed()
    end
    finish(spec.outcome)
    local seconds = spec.element.duration or 0
    if seconds > SLOW then write((" [%.1f s: %s] "):format(seconds, full_name(spec.element))) end
  end

  function handler.subscribe()
    busted.subscribe({ "file", "start" }, function(file)
      write(("%-36s "):format((tostring(file.name):gsub("^.*/spec/", "spec/"))))
      return nil, true
    end)
    busted.subscribe({ "file", "end" }, function()
      write("\n")
      return nil, true
    end)
    busted.subscribe({ "test", "end" }, function(element, _, status)
      current = { element = element, outcome = status }
      if status == "pending" then
        pendings[#pendings + 1] = full_name(element) .. (notes[element] and ": " .. tostring(notes[element]) or "")
        if element.descriptor == "pending" then
          current = nil
          finish("pending")
        end
      end
      return nil, true
    end)
    busted.subscribe({ "pending" }, function(element, _, message)
      notes[element] = message
      return nil, true
    end)
    -- A failure of something that is no spec (a file that does not load, a hook) counts as one.
    local function broken(element, _, message, trace)
      fail(element, message, trace)
      if element.descriptor ~= "it" then
        failed = failed + 1
        write("*")
      end
      return nil, true
    end
    busted.subscribe({ "failure" }, broken)
    busted.subscribe({ "error" }, broken)
    busted.subscribe({ "exit" }, function()
      for _, text in ipairs(pendings) do write("\nskipped: ", text, "\n") end
      for _, f in ipairs(failures) do
        write("\nFAILED ", f.title, "\n", f.message, "\n", f.traceback and f.traceback .. "\n" or "")
      end
      write(("\n%d passed, %d failed%s\n"):format(passed, failed,
        skipped > 0 and (", %d skipped"):format(skipped) or ""))
      -- Not busted's own exit: it gives the number of failures, which wraps at 256.
      os.exit(failed == 0 and passed + skipped > 0 and #failures == 0, true)
    end)
    -- The outermost after_each runs after all others.
    busted.after_each(conclude)
  end

  return handler
end
