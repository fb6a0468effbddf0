-- chat_server.lua [port] - a chat room: what one says, everybody else reads. With a port it serves until
-- Ctrl-C (talk to it with `nc 127.0.0.1 PORT`); without one, three guests come, talk and go.
--
-- Each guest has two tasks: one reads what the guest says, one writes what the others say. Between them stands
-- a channel that drops the oldest line when it is full, so a guest who does not read holds nobody up.

local task = require "asynctask"
local net = require "asynctask.net"
local channel = require "asynctask.channel"

local await = task.await
local LONGEST = 1000 -- bytes of a line

local guests = {} -- name -> channel

local function tell(line, except)
  for name, mailbox in pairs(guests) do
    if name ~= except then
      await(mailbox:send(line))
    end
  end
end

local function read_line(stream)
  return await(stream:read_until("\n", { max = LONGEST }))
end

local function ask_name(stream)
  while true do
    await(stream:write("your name? "))
    local name = read_line(stream)
    if not name or (name:find("^%w+$") and not guests[name]) then
      return name
    end
    await(stream:write("letters and digits, and not somebody else's\n"))
  end
end

local function welcome(name)
  local mailbox = channel.new(100, { overflow = "drop_oldest" })
  guests[name] = mailbox
  tell(name .. " has come", name)
  return mailbox, setmetatable({}, { __close = function()
    guests[name] = nil
    task.shield(tell, name .. " has left")
  end })
end

local function chat(stream)
  local name = ask_name(stream)
  if not name then
    return
  end
  local mailbox, _ <close> = welcome(name)
  task.with_group(function(g)
    local writer = g:spawn(function()
      for line in mailbox:each() do
        await(stream:write(line, "\n"))
      end
    end)
    for line in read_line, stream do
      tell(name .. ": " .. line, name)
    end
    writer:cancel()
  end)
end

-- What happens without a port: guests who say a line each and read until they have heard enough.
local function guest(port, name, says, hears)
  local stream <close> = await(net.connect("127.0.0.1", port))
  await(stream:write(name, "\n"))
  await(stream:read(#"your name? "))
  local heard = 0
  for line in stream:lines() do
    print(name .. " reads: " .. line)
    heard = heard + 1
    if heard == 1 and says then
      await(stream:write(says, "\n"))
    end
    if heard == hears then
      break
    end
  end
end

local function demonstrate(server)
  local port = server:sockname().port
  local ada = task.spawn(guest, port, "ada", "hello bob", 2)
  await(task.delay(0.05)) -- so that the output is the same each time
  local bob = task.spawn(guest, port, "bob", "hello ada", 1)
  task.with_timeout(10, task.when_all, ada, bob)
end

task.main(function(port)
  local server <close> = await(net.listen("127.0.0.1", port or 0))
  local serving = server:serve(chat, {
    on_error = function(err) io.stderr:write("a guest was lost: ", tostring(err), "\n") end,
  })
  print("chatting on port " .. server:sockname().port)
  if port then
    await(serving)
  end
  demonstrate(server)
  await(server:close())
  print "closed"
end, math.tointeger(arg[1]))
