-- A crawler: bounded fan-out over work that makes more work. It walks a little web of pages, served on
-- loopback by this very program, at most LIMIT pages at once, each with a deadline; pages that fail are
-- noted, and the rest goes on.
--
--     lua5.4 examples/crawl_fanout.lua [pages] [limit]

local task = require "asynctask"
local net = require "asynctask.net"

local await = task.await
local PAGES = math.tointeger(tonumber(arg[1] or 60)) or error("pages: a number expected")
local LIMIT = math.tointeger(tonumber(arg[2] or 8)) or error("limit: a number expected")

-- ---- the web: page n links to 2n and 2n + 1; every 13th page is missing, every 17th is slow -----------

local function answer(stream)
  local n = math.tointeger(tonumber(await(stream:read "l") or ""))
  if not n or n % 13 == 0 then
    return await(stream:write "404 not found\n")
  end
  await(task.delay(n % 17 == 0 and 30 or 0.005))
  local links = {}
  for link = 2 * n, 2 * n + 1 do
    if link <= PAGES then links[#links + 1] = link end
  end
  await(stream:write("200 ", table.concat(links, " "), "\n"))
end

-- ---- the crawler --------------------------------------------------------------------------------------

-- The links of a page; raises when there is no such page.
local function fetch(address, n)
  local stream <close> = await(net.connect(address.host, address.port))
  await(stream:write(n, "\n"))
  local status, rest = await(stream:read "l"):match "^(%d+) ?(.*)$"
  if status ~= "200" then
    error(task.error { op = "fetch", code = "ENOENT", message = rest })
  end
  local links = {}
  for link in rest:gmatch "%d+" do links[#links + 1] = math.tointeger(tonumber(link)) end
  return links
end

local function crawl(address)
  local seen, fetched, running, most, failures = {}, 0, 0, 0, {}
  local function visit(g, n)
    running = running + 1
    most = math.max(most, running)
    local _ <close> = setmetatable({}, { __close = function() running = running - 1 end })
    for _, link in ipairs(task.with_timeout(0.3, fetch, address, n)) do
      if not seen[link] then
        seen[link] = true
        g:spawn(visit, g, link):named("page " .. link) -- queued while LIMIT pages are under way
      end
    end
    fetched = fetched + 1
  end
  task.with_group({
    limit = LIMIT,
    on_error = function(err, t) failures[#failures + 1] = t:name() .. ": " .. err end,
  }, function(g)
    seen[1] = true
    g:spawn(visit, g, 1):named("page 1")
  end)
  return fetched, most, failures
end

task.main({ grace = 0 }, function()
  local server = await(net.listen("127.0.0.1", 0))
  local serving = server:serve(answer)
  local fetched, most, failures = crawl(server:sockname())
  print(("%d pages, at most %d at once"):format(fetched, most))
  table.sort(failures)
  for _, text in ipairs(failures) do print("  " .. text) end
  await(server:close { grace = 0 })
  task.try(serving)
end)
