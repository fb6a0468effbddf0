-- A crawler: follows the links of pages within their hosts, a bounded number of requests at once and a pause between
-- two requests to the same host, each with a deadline; shows its progress and sums up. Without arguments it serves
-- itself a little web on loopback and crawls that.
--
--     lua5.4 examples/crawl.lua [url] [pages] [delay in seconds]

local task = require "asynctask"
local http = require "asynctask.http"
local net = require "asynctask.net"
local sync = require "asynctask.sync"

local await = task.await

local LIMIT = 8                                          -- requests at once
local PAGES = math.tointeger(tonumber(arg[2] or 200)) or error "pages: a number expected"
local DELAY = tonumber(arg[3] or 0.002) or error "delay: a number expected"
local LARGEST = 4 * 1024 * 1024                          -- bytes of a page

-- ---- the polite part: one turn after the other for each host ------------------------------------------

local turns = {} -- host -> a lock that is held through the pause

local function in_turn(host, f, ...)
  local lock = turns[host] or sync.mutex()
  turns[host] = lock
  do
    local _ <close> = await(lock:lock())
    await(task.delay(DELAY))
  end
  return f(...)
end

-- ---- pages --------------------------------------------------------------------------------------------

local function host_of(url)
  return url:match "^https?://([^/?#]+)"
end

-- An absolute URL without its fragment, or nil for what is no page of the same host.
local function resolve(base, link)
  link = link:gsub("#.*$", ""):gsub("&amp;", "&")
  if link == "" then
    return nil
  elseif link:find "^%a[%w+.-]*:" then
    return host_of(link) == host_of(base) and link or nil
  elseif link:sub(1, 2) == "//" then
    return resolve(base, base:match "^%a+:" .. link)
  elseif link:sub(1, 1) == "/" then
    return base:match "^%a+://[^/?#]+" .. link
  end
  return base:gsub("[?#].*$", ""):match "^(.*/)" .. link
end

local function fetch(client, url)
  local reply <close> = await(client:get(url, { max_body = LARGEST }))
  if not reply.ok then
    error(task.error { op = "GET", address = url, code = "EHTTP", message = "status " .. reply.status })
  end
  if not (reply.headers["content-type"] or ""):find "^text/html" then
    return "", reply.url
  end
  return await(reply:text()), reply.url
end

local function crawl(client, start)
  local seen, found, fetched, bytes, failures = { [start] = true }, 1, 0, 0, {}
  local function visit(g, url)
    local text, at = in_turn(host_of(url), fetch, client, url)
    fetched, bytes = fetched + 1, bytes + #text
    if fetched % 20 == 0 then
      print(("%d pages, %d KiB"):format(fetched, bytes // 1024))
    end
    for link in text:gmatch "[hH][rR][eE][fF]%s*=%s*[\"']([^\"']*)[\"']" do
      local to = resolve(at, link)
      if to and not seen[to] and found < PAGES then
        seen[to], found = true, found + 1
        g:spawn(visit, g, to):named(to) -- queued while LIMIT are under way
      end
    end
  end
  task.with_group({
    limit = LIMIT,
    on_error = function(err) failures[#failures + 1] = tostring(err) end,
  }, function(g)
    g:spawn(visit, g, start)
  end)
  return fetched, bytes, failures
end

-- ---- a web of one's own: page n links to 2n and 2n + 1, every 13th is missing --------------------------

local function answer(stream)
  for head in function() return await(stream:read_until "\r\n\r\n") end do
    local n = math.tointeger(tonumber(head:match "^GET /(%d+) ")) or 1
    local body = ('<a href="/%d">left</a> <a HREF=\'%d#top\'>right</a> <a href="http://elsewhere.invalid/">x</a>')
      :format(2 * n, 2 * n + 1)
    await(stream:write(n % 13 == 0 and "HTTP/1.1 404 Not Found\r\n" or "HTTP/1.1 200 OK\r\n",
      "Content-Type: text/html\r\nContent-Length: ", #body, "\r\n\r\n", body))
  end
end

task.main({ grace = 0 }, function()
  local client <close> = http.client {
    timeout = 20, max_per_host = LIMIT, headers = { ["User-Agent"] = "asynctask-example" },
  }
  local server, serving
  local start = arg[1]
  if not start then
    server = await(net.listen("127.0.0.1", 0))
    serving = server:serve(answer)
    start = ("http://127.0.0.1:%d/1"):format(server:sockname().port)
  end
  local fetched, bytes, failures = crawl(client, start)
  print(("%d pages, %d bytes, %d failures"):format(fetched, bytes, #failures))
  table.sort(failures)
  for i = 1, math.min(#failures, 10) do print("  " .. failures[i]) end
  if server then
    await(client:close())
    await(server:close { grace = 1 })
    task.try(serving)
  end
end)
