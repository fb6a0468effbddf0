-- chat_web.lua [port] - a chat room in the browser: a page, and a WebSocket for each guest. What one says, all
-- read. Serves until Ctrl-C.
--
-- Each guest has two tasks: the handler reads what the guest says, another one writes what all say. Between them
-- stands a channel that drops the oldest line when it is full, so a guest who does not read holds nobody up.

local task = require "asynctask"
local net = require "asynctask.net"
local channel = require "asynctask.channel"
local http = require "asynctask.http"

local await = task.await

local here = arg[0]:match "^(.*)/" or "."
local guests = {} -- name -> channel

local function tell(line)
  for _, mailbox in pairs(guests) do
    mailbox:try_send(line)
  end
end

local function enter(name)
  local mailbox = channel.new(100, { overflow = "drop_oldest" })
  guests[name] = mailbox
  tell(("* %s has come"):format(name))
  return mailbox, setmetatable({}, { __close = function()
    guests[name] = nil
    tell(("* %s has left"):format(name))
  end })
end

local function chat(req)
  local ws <close> = await(http.upgrade(req, { max_message = 1000 }))
  local name = await(ws:receive())
  if not name then
    return
  elseif not name:find "^[%w_-]+$" or #name > 20 or guests[name] then
    await(ws:close(4000, "that name is taken, or has odd characters"))
    return
  end
  local mailbox, _ <close> = enter(name)
  task.with_group(function(g)
    local writer = g:spawn(function()
      for line in mailbox:each() do
        await(ws:send(line))
      end
    end)
    for message in ws:each() do
      tell(("%s: %s"):format(name, message))
    end
    writer:cancel()
  end)
end

local router = http.router()
router:get("/chat", chat)
router:mount("/", http.files(here .. "/web", { index = "chat.html" }))

task.main(function(port)
  local server <close> = await(net.listen("127.0.0.1", port))
  print(("http://127.0.0.1:%d/"):format(server:sockname().port))
  io.stdout:flush()
  await(http.serve(server, router, {
    on_error = function(err) io.stderr:write("a guest was lost: ", tostring(err), "\n") end,
  }))
end, tonumber(arg[1]) or 8080)
