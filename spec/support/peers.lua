-- Real servers for specs, on loopback and as processes of their own: started, waited for, ended with the scope.
-- And two small ones of ours, for protocols that LuaSocket has clients for: a sink for mail, and files by FTP.

local task = require "asynctask"
local fs = require "asynctask.fs"
local net = require "asynctask.net"
local process = require "asynctask.process"

local await, try = task.await, task.try

local peers = {}

--- Whether a program is installed.
---@param name string
---@return boolean
function peers.has(name)
  local _, _, code = await(process.run("sh", { "-c", "command -v " .. name }))
  return code == 0
end

--- A port that was free a moment ago.
---@return integer
function peers.port()
  local server <close> = await(net.listen("127.0.0.1", 0))
  return server:sockname().port
end

local peer_meta = {
  __close = function(peer)
    await(peer.process:close { grace = 5 })
  end,
}

-- Runs a server until `ready()` says that it answers. A value for `<close>`.
local function run(command, args, ready)
  local child = await(process.spawn(command, args, { stdin = "ignore", stdout = "ignore", stderr = "ignore" }))
  local peer = setmetatable({ process = child }, peer_meta)
  local over = child:wait()
  for _ = 1, 2000 do
    if ready() then
      return peer
    elseif over:done() then
      break
    end
    await(task.delay(0.005))
  end
  await(child:close())
  error(command .. " did not start")
end

local function answers(address, port)
  return function()
    local stream = try(net.connect(address, port))
    if stream then
      await(stream:close())
    end
    return stream ~= nil
  end
end

--- redis-server, on a port and a Unix socket.
---@param directory string
---@return table peer with `port` and `path`
function peers.redis(directory)
  local port, path = peers.port(), directory .. "/redis.sock"
  local peer = run("redis-server", { "--port", port, "--bind", "127.0.0.1", "--unixsocket", path, "--save", "",
    "--appendonly", "no", "--daemonize", "no", "--dir", directory, "--logfile", directory .. "/redis.log" },
    answers("127.0.0.1", port))
  peer.port, peer.path = port, path
  return peer
end

local function is_root()
  return (await(process.run("id", { "-u" }))) == "0\n"
end

local NGINX = [[
$USER
daemon off;
pid $DIR/nginx.pid;
error_log $DIR/error.log;
events { }
http {
  access_log off;
  client_body_temp_path $DIR/t1; proxy_temp_path $DIR/t2; fastcgi_temp_path $DIR/t3; uwsgi_temp_path $DIR/t4;
  scgi_temp_path $DIR/t5;
  server {
    listen 127.0.0.1:$PORT;
    root $DIR;
    location = /moved { return 302 /page.txt; }
    location = /gone { return 404 "not here"; }
    location /up/ { dav_methods PUT; }
    location /slow/ { limit_rate 20k; }
  }
}
]]

--- nginx that serves the directory.
---@param directory string
---@return table peer with `port`
function peers.nginx(directory)
  local port = peers.port()
  local config = NGINX:gsub("%$DIR", directory):gsub("%$PORT", port)
    :gsub("%$USER", is_root() and "user root;" or "")
  await(fs.write_file(directory .. "/nginx.conf", config))
  local peer = run("nginx", { "-p", directory, "-e", directory .. "/error.log", "-c", directory .. "/nginx.conf" },
    answers("127.0.0.1", port))
  peer.port = port
  return peer
end

local function postgres_bin()
  return await(fs.glob("/usr/lib/postgresql/*/bin"))[1]
end

--- Whether PostgreSQL can be run here (as another user, when this is root's).
---@return boolean
function peers.has_postgres()
  return postgres_bin() ~= nil and (not is_root() or peers.has("runuser"))
end

-- PostgreSQL refuses to run for root.
local function as_user(directory, command, args)
  if not is_root() then
    return command, args
  end
  await(process.run("chown", { "postgres", directory }, { check = true }))
  return "runuser", { "-u", "postgres", "--", command, table.unpack(args) }
end

--- PostgreSQL with a database of its own, user "postgres", nobody is asked for a password.
---@param directory string
---@return table peer with `port`
function peers.postgres(directory)
  local bin, port, data = postgres_bin(), peers.port(), directory .. "/data"
  local command, args = as_user(directory, bin .. "/initdb", { "-D", data, "-U", "postgres", "-A", "trust", "-N" })
  await(process.run(command, args, { check = true, cwd = directory }))
  command, args = as_user(directory, bin .. "/postgres", { "-D", data, "-p", port, "-h", "127.0.0.1", "-k", "", "-F" })
  local peer = run(command, args, function()
    return (try(fs.read_file(data .. "/postmaster.pid")) or ""):find("\nready", 1, true) ~= nil
  end)
  peer.port = port
  return peer
end

-- ---- a sink for mail ---------------------------------------------------------------------------

local function take_mail(stream, mails)
  local function say(line)
    await(stream:write(line, "\r\n"))
  end
  local mail = { to = {} }
  say("220 sink")
  for line in stream:lines() do
    line = line:gsub("\r$", "")
    local verb = line:match("^%a+"):upper()
    if verb == "EHLO" or verb == "HELO" then
      say("250 sink")
    elseif verb == "MAIL" then
      mail.from = line:match("<(.*)>")
      say("250 ok")
    elseif verb == "RCPT" then
      mail.to[#mail.to + 1] = line:match("<(.*)>")
      say(line:find("nobody", 1, true) and "550 no such user" or "250 ok")
    elseif verb == "DATA" then
      say("354 go on")
      mail.data = await(stream:read_until("\r\n.\r\n"))
      mails[#mails + 1] = mail
      say("250 taken")
    elseif verb == "QUIT" then
      say("221 bye")
      return
    else
      say("502 what?")
    end
  end
end

-- ---- files by FTP ------------------------------------------------------------------------------

local function serve_ftp(stream, files)
  local function say(line)
    await(stream:write(line, "\r\n"))
  end
  local data -- the server for the next transfer
  local function transfer(f)
    say("150 here it comes")
    local other = await(data:accept())
    f(other)
    await(other:close())
    await(data:close())
    say("226 done")
  end
  local commands = {
    USER = function() say("331 password?") end,
    PASS = function(given) say(given == "wrong" and "530 no" or "230 welcome") end,
    TYPE = function() say("200 ok") end,
    CWD = function() say("250 ok") end,
    PASV = function()
      data = await(net.listen("127.0.0.1", 0))
      local port = data:sockname().port
      say(("227 entering (127,0,0,1,%d,%d)"):format(port // 256, port % 256))
    end,
    EPSV = function()
      data = await(net.listen("127.0.0.1", 0))
      say(("229 entering (|||%d|)"):format(data:sockname().port))
    end,
    RETR = function(name)
      if not files[name] then
        await(data:close())
        say("550 no such file")
        return
      end
      transfer(function(other) await(other:write(files[name])) end)
    end,
    STOR = function(name)
      transfer(function(other) files[name] = await(other:read("a")) end)
    end,
  }
  say("220 files")
  for line in stream:lines() do
    local verb, rest = line:match("^(%a+) ?(.-)\r?$")
    if verb:upper() == "QUIT" then
      say("221 bye")
      return
    end
    local command = commands[verb:upper()]
    if command then
      command(rest)
    else
      say("502 what?")
    end
  end
end

local own_meta = {
  __close = function(own)
    await(own.server:close { grace = 1 })
    await(own.serving)
  end,
}

local function own(handler, state)
  local server = await(net.listen("127.0.0.1", 0))
  return setmetatable({ server = server, port = server:sockname().port, state = state,
    serving = server:serve(function(stream) handler(stream, state) end) }, own_meta)
end

--- A server that takes mail: `state` has the list. Recipients with "nobody" in them are refused.
---@return table peer with `port` and `state`
function peers.smtp()
  return own(take_mail, {})
end

--- A server of files: `state` has them by name. The password "wrong" is refused.
---@param files table<string, string>
---@return table peer with `port` and `state`
function peers.ftp(files)
  return own(serve_ftp, files)
end

return peers
