-- run_parallel.lua [-j N] [-t SECONDS] COMMAND... - runs shell commands, at most N at once (as many as there
-- are processors), and prints what each said when it ends. Without commands it reads them from standard
-- input, one a line, and starts them as they come. Exits with 1 if one failed. Ctrl-C ends them all.
--
--     lua5.4 examples/run_parallel.lua -j 2 "make -C a" "make -C b" "make -C c"
--     ls *.png | sed 's/.*/optipng &/' | lua5.4 examples/run_parallel.lua

local task = require "asynctask"
local process = require "asynctask.process"
local tty = require "asynctask.tty"

local await = task.await

local function usage(problem)
  io.stderr:write("run_parallel: ", problem, "\nusage: run_parallel.lua [-j N] [-t SECONDS] [COMMAND...]\n")
  os.exit(2)
end

local function parse(list)
  local options, i = { commands = {} }, 1
  while list[i] do
    local word = list[i]
    if word == "-j" or word == "-t" then
      i = i + 1
      options[word] = tonumber(list[i]) or usage(word .. " takes a number")
    elseif word:find("^%-") then
      usage("unknown option " .. word)
    else
      options.commands[#options.commands + 1] = word
    end
    i = i + 1
  end
  if options["-j"] and (math.type(options["-j"]) ~= "integer" or options["-j"] < 1) then
    usage("-j takes a positive integer")
  end
  return options
end

local function processors()
  local output, _, code = await(process.run("getconf", { "_NPROCESSORS_ONLN" }))
  return code == 0 and tonumber(output) or 2
end

-- One command, and whether it went well. Its output is printed in one piece.
local function run(command, number, timeout)
  local output, err = task.try(process.run("sh", { "-c", command },
    { stderr = "stdout", check = true, timeout = timeout }))
  local text = output or err.output or ""
  if text ~= "" and text:sub(-1) ~= "\n" then
    text = text .. "\n"
  end
  local verdict = output and "ok" or err.code == "EEXIT" and (err.signal or "exit " .. err.status) or tostring(err)
  await(tty.stdout:write(("[%d] %s: %s\n"):format(number, command, verdict), text))
  return output ~= nil
end

task.main(function()
  local options = parse(arg)
  local failed, count = 0, 0
  task.with_group({ limit = options["-j"] or processors() }, function(g)
    local function add(command)
      count = count + 1
      local number = count
      g:spawn(function()
        if not run(command, number, options["-t"]) then
          failed = failed + 1
        end
      end)
    end
    for _, command in ipairs(options.commands) do
      add(command)
    end
    if count == 0 then
      for line in tty.stdin:lines() do
        add(line)
      end
    end
  end)
  await(tty.stdout:write(("%d commands, %d failed\n"):format(count, failed)))
  if failed > 0 then
    os.exit(1, true)
  end
end)
