-- Downloads URLs into files of the current directory, several at once, with progress, and goes on with what an earlier
-- run has begun. Without arguments it serves itself a file on loopback and downloads that.
--
--     lua5.4 examples/download.lua [url...]

local task = require "asynctask"
local fs = require "asynctask.fs"
local http = require "asynctask.http"
local net = require "asynctask.net"

local await = task.await
local LIMIT = 4 -- downloads at once

local function name_of(url)
  return url:match "([^/?#]+)[?#]?[^/]*$" or "index.html"
end

local function download(client, url)
  local path, shown = name_of(url), -1
  local size = await(client:download(url, path, {
    resume = true,
    progress = function(bytes, total)
      local percent = total and bytes * 100 // total or 0
      if percent >= shown + 25 then
        shown = percent - percent % 25
        print(("%s: %s"):format(path, total and shown .. " %" or bytes .. " bytes"))
      end
    end,
  }))
  print(("%s: done, %d bytes"):format(path, size))
end

-- A server for the case without arguments: one file, 1 MB.
local function serve_itself(visit)
  local server = await(net.listen("127.0.0.1", 0))
  local body = ("asynctask"):rep(111112)
  local serving = server:serve(function(stream)
    await(stream:read_until "\r\n\r\n")
    await(stream:write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: ", #body, "\r\n\r\n", body))
  end)
  visit { ("http://127.0.0.1:%d/sample.bin"):format(server:sockname().port) }
  await(server:close { grace = 1 })
  task.try(serving)
  await(fs.remove "sample.bin")
end

task.main(function()
  local client <close> = http.client { idle_timeout = 30, retries = 3 }
  local function fetch(urls)
    local failed = 0
    task.with_group({
      limit = LIMIT,
      on_error = function(err)
        failed = failed + 1
        io.stderr:write(tostring(err), "\n")
      end,
    }, function(g)
      for _, url in ipairs(urls) do
        g:spawn(download, client, url)
      end
    end)
    if failed > 0 then
      error(failed .. " of the downloads failed", 0)
    end
  end
  if #arg == 0 then
    serve_itself(fetch)
  else
    fetch(arg)
  end
end)
