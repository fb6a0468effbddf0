-- file_server.lua [directory [port]] - serves the files of a directory, with a list of what is in each one, until
-- Ctrl-C. Nothing outside of it can be had: not by "..", not through a link.

local task = require "asynctask"
local fs = require "asynctask.fs"
local net = require "asynctask.net"
local http = require "asynctask.http"

local await = task.await

local function escape(text)
  return (text:gsub('[&<>"]', { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }))
end

local function in_url(name)
  return (name:gsub("[^%w._~-]", function(c) return ("%%%02X"):format(c:byte()) end))
end

local function entries(directory)
  local list = {}
  for name, entry in fs.dir(directory) do
    if name:sub(1, 1) ~= "." and (entry.type == "file" or entry.type == "directory") then
      list[#list + 1] = entry.type == "directory" and name .. "/" or name
    end
  end
  table.sort(list)
  return list
end

-- Is the directory of this path inside the root, links followed? http.files has checked only names of files.
local function inside(root, path)
  local real = task.try(fs.realpath(root .. path))
  return real and (real == root or real:sub(1, #root + 1) == root .. "/") and real
end

-- Answers what http.files has no file for: a directory without an index.
local function lister(root)
  return function(req)
    local path = req.path
    local real = path:sub(-1) == "/" and not path:find("/.", 1, true) and not path:find("%z") and inside(root, path)
    local names = real and task.try(task.spawn(entries, real))
    if not names then
      return 404, { ["content-type"] = "text/plain; charset=utf-8" }, "not found\n"
    end
    local lines = { ("<!doctype html><meta charset=utf-8><title>%s</title><h1>%s</h1><ul>"):format(escape(path),
      escape(path)) }
    for _, name in ipairs(names) do
      local plain, slash = name:match("^(.-)(/?)$")
      lines[#lines + 1] = ('<li><a href="%s%s">%s</a>'):format(in_url(plain), slash, escape(name))
    end
    return 200, { ["content-type"] = "text/html; charset=utf-8" }, table.concat(lines, "\n") .. "\n</ul>\n"
  end
end

task.main(function(directory, port)
  local root = await(fs.realpath(directory))
  local files = http.files(root, { precompressed = true, cache_control = "no-cache", fallback = lister(root) })
  local server <close> = await(net.listen("127.0.0.1", port))
  print(("http://127.0.0.1:%d/"):format(server:sockname().port))
  io.stdout:flush()
  await(http.serve(server, files))
end, arg[1] or ".", tonumber(arg[2]) or 8080)
