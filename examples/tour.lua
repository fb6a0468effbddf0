-- tour.lua [dir] - a real job with everything at once, beside the same work in plain Lua.
--
-- It walks a directory, reads the text files in it, counts their words on all cores, and serves the
-- result over TCP to several clients, one of which is too slow for its deadline. Each part is then
-- done again one thing after another in plain Lua; the two have to agree, or the tour exits with 1.
--
--     ./bootstrap demo              or: make demo DIR=/some/dir

local task = require "asynctask"
local fs = require "asynctask.fs"
local net = require "asynctask.net"
local now = require "asynctask.core".now -- seconds; plain Lua has no clock that is fine enough

local await = task.await

-- What keeps the tour short on any directory.
local MAX_FOUND = 20000            -- entries of directories that are looked at
local MAX_FILES = 5000             -- files that are read
local MAX_BYTES = 24 * 1024 * 1024 -- of them together
local MAX_SIZE = 1024 * 1024       -- of one of them
local SURVEY = 4                   -- seconds to find and read them the first time
local READERS = 32                 -- files read at once
local BATCH = 2 * 1024 * 1024      -- bytes of text that one job counts
local QUESTIONS = { "^a", "ing$", "^un", "ness$", "q", "^[aeiou]+$", "zz", "^.$" } -- one for each client
local DEADLINE = 0.25              -- seconds that a client may take

-- ---- the work itself, the same for both ------------------------------------------------------

local function is_text(data)
  return #data > 0 and not data:find("\0", 1, true)
end

-- Runs on other threads, too: it uses nothing but its argument.
local function count_words(texts)
  local counts = {}
  for _, text in ipairs(texts) do
    for word in text:gmatch "%a+" do
      word = word:lower()
      counts[word] = (counts[word] or 0) + 1
    end
  end
  return counts
end

local function add_up(total, counts)
  for word, n in pairs(counts) do
    total[word] = (total[word] or 0) + n
  end
end

-- The five most frequent words that match a pattern, in one line.
local function answer(counts, question)
  local words = {}
  for word in pairs(counts) do
    if word:find(question) then
      words[#words + 1] = word
    end
  end
  table.sort(words, function(a, b)
    return counts[a] > counts[b] or counts[a] == counts[b] and a < b
  end)
  for i = 1, math.min(5, #words) do
    words[i] = ("%s %d"):format(words[i], counts[words[i]])
  end
  return table.concat(words, ", ", 1, math.min(5, #words))
end

-- ---- with tasks ------------------------------------------------------------------------------

local with_tasks = {}

function with_tasks.walk(dir, limit)
  local paths = {}
  for path in fs.walk(dir) do
    paths[#paths + 1] = path
    if #paths == limit then break end
  end
  return paths
end

-- The operations of many files are under way at the same time. (A file that has vanished meanwhile
-- reads as empty.)
function with_tasks.read(paths)
  return await(task.map(paths, function(path)
    return fs.read_file(path):try() or ""
  end, { limit = READERS }))
end

-- Each batch of texts is copied to a thread of the pool; its counts are copied back.
function with_tasks.count(texts, progress)
  local total, jobs, batch, size = {}, {}, {}, 0
  for i, text in ipairs(texts) do
    batch[#batch + 1] = text
    size = size + #text
    if size >= BATCH or i == #texts then
      jobs[#jobs + 1] = task.run(count_words, batch)
      batch, size = {}, 0
    end
  end
  for job in task.when_each(jobs) do
    add_up(total, await(job))
    progress:step(#texts / #jobs)
  end
  return total
end

local function ask(port, question)
  local stream <close> = await(net.connect("127.0.0.1", port))
  await(stream:write(question, "\n"))
  return await(stream:read "l")
end

local function ask_and_fall_asleep(port)
  local stream <close> = await(net.connect("127.0.0.1", port))
  await(stream:write "^the$\n")
  await(task.delay(60)) -- the deadline ends this, and the stream is closed
  return await(stream:read "l")
end

-- A server and its clients. Returns the answers, the error of the client that was too slow, and how
-- long the others took.
function with_tasks.serve(counts)
  local server <close> = await(net.listen("127.0.0.1", 0))
  server:serve(function(stream)
    for question in stream:lines() do
      await(stream:write(answer(counts, question), "\n"))
    end
  end)

  local port = server:sockname().port
  local began = now()
  local slow = task.spawn(task.with_timeout, DEADLINE, ask_and_fall_asleep, port)
  local answers = await(task.map(QUESTIONS, function(question)
    return task.with_timeout(5, ask, port, question)
  end))
  local took = now() - began
  local _, err = slow:try()
  return answers, err, took, now() - began
end

-- ---- one after another, in plain Lua ---------------------------------------------------------

local in_plain_lua = {}

-- Plain Lua cannot list a directory: another program has to.
function in_plain_lua.walk(dir, limit)
  local find = io.popen("find '" .. dir:gsub("'", "'\\''") .. "' -mindepth 1 -print0 2>/dev/null")
  local paths, rest = {}, ""
  for block in function() return find:read(65536) end do
    local last = 1
    rest = rest .. block
    for path, after in rest:gmatch "([^\0]+)\0()" do
      if #paths < limit then paths[#paths + 1] = path end
      last = after
    end
    rest = rest:sub(last)
    if #paths == limit then break end
  end
  find:close()
  return paths
end

local function read_whole(path)
  local file = io.open(path, "rb")
  if not file then
    return ""
  end
  local data = file:read "a"
  file:close()
  return data or ""
end

function in_plain_lua.read(paths)
  local texts = {}
  for i, path in ipairs(paths) do
    texts[i] = read_whole(path)
  end
  return texts
end

function in_plain_lua.count(texts)
  return count_words(texts)
end

-- Plain Lua has no sockets: it answers the same questions by calling the function.
function in_plain_lua.serve(counts)
  local answers = {}
  for i, question in ipairs(QUESTIONS) do
    answers[i] = answer(counts, question)
  end
  return answers
end

-- ---- showing it ------------------------------------------------------------------------------

local function say(format, ...)
  print(format:format(...))
end

-- 1234567 -> 1,234,567
local function grouped(n)
  local digits = ("%d"):format(n)
  return (digits:reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", ""))
end

local is_terminal = os.execute "test -t 1" == true

local Progress = {}
Progress.__index = Progress

function Progress:step(n)
  self.done = math.min(self.total, self.done + n)
end

function Progress:line()
  local part = self.total > 0 and self.done / self.total or 1
  if not is_terminal then
    return ("  %-22s %3.0f %%"):format(self.label, part * 100)
  end
  local width = math.floor(part * 30)
  return ("\r  %-22s [%s%s] %3.0f %%"):format(self.label, ("#"):rep(width), ("."):rep(30 - width), part * 100)
end

function Progress:show()
  io.write(self:line(), is_terminal and "" or "\n")
  io.flush()
end

function Progress:__close()
  self.drawing:cancel()
  self:show()
  io.write(is_terminal and "\n" or "")
end

-- A bar that redraws itself while the work goes on (lines, more slowly, when this is no terminal).
local function progress(label, total)
  local bar = setmetatable({ label = label, total = total, done = 0 }, Progress)
  bar.drawing = task.spawn(function()
    for _ in task.every(is_terminal and 0.05 or 0.5) do
      bar:show()
    end
  end)
  return bar
end

-- Runs one part both ways; returns both results and notes the times.
local rows = {}

local function compare(label, part, input, ...)
  collectgarbage()
  local began = now()
  local a, err, took, waited = with_tasks[part](input, ...)
  took = took or now() - began
  collectgarbage()
  began = now()
  local b = in_plain_lua[part](input, ...)
  rows[#rows + 1] = { label = label, tasks = took, plain = now() - began }
  return a, b, err, waited
end

local function print_table()
  local total = { label = "together", tasks = 0, plain = 0 }
  for _, row in ipairs(rows) do
    total.tasks = total.tasks + row.tasks
    total.plain = total.plain + row.plain
  end
  rows[#rows + 1] = total
  say("\n  %-36s %12s %14s %12s", "", "with tasks", "plain Lua", "speed")
  for _, row in ipairs(rows) do
    say("  %-36s %10.4f s %12.4f s %10.2f x", row.label, row.tasks, row.plain, row.plain / row.tasks)
  end
end

-- ---- do they agree? --------------------------------------------------------------------------

local function same(a, b)
  for k, v in pairs(a) do
    if b[k] ~= v then return false, k end
  end
  for k in pairs(b) do
    if a[k] == nil then return false, k end
  end
  return true
end

-- What is in one list only, other than what came, went or was changed while the tour ran.
local function missing(a, b, began)
  local seen = {}
  for _, path in ipairs(a) do seen[path] = 1 end
  for _, path in ipairs(b) do seen[path] = (seen[path] or 0) + 2 end
  for path, where in pairs(seen) do
    local stat = where ~= 3 and fs.lstat(path):try()
    if stat and stat.ctime < began then
      return path
    end
  end
end

-- A file that was written to between the two readings is read again, both ways, until they agree; one
-- that never holds still is left out.
local function settle_changes(paths, a, b)
  for i, path in ipairs(paths) do
    for _ = 1, 5 do
      if a[i] == b[i] then break end
      a[i], b[i] = fs.read_file(path):try() or "", read_whole(path)
    end
    if a[i] ~= b[i] and b[i] ~= read_whole(path) then
      a[i], b[i] = "", ""
    end
  end
end

-- ---- the tour --------------------------------------------------------------------------------

local function default_directory()
  for _, dir in ipairs { "/usr/share/doc", "/usr/share/man" } do
    if fs.exists(dir):try() then
      local entries <close> = fs.dir(dir)
      if entries() then
        return dir
      end
    end
  end
  return (arg[0]:match "^(.*)/[^/]*$" or ".") .. "/.."
end

-- Finds and reads everything once, which also brings it into the system's cache, so that what is
-- measured afterwards finds the same for both. Stops at the limits and says so. Returns the paths of
-- texts, how many bytes they are, why it stopped if it did, and how far it got if that was for the time.
local function survey(dir)
  local paths, bytes, found, stopped = {}, 0, 0, nil
  local bar <close> = progress("first look", MAX_BYTES)
  local device = await(fs.stat(dir)).dev
  local function on_this_device(_, entry)
    return entry.dev == device -- leaves out /proc and the like
  end

  local function look(path, entry)
    local readable = entry.type == "file" and entry.size > 0 and entry.size <= MAX_SIZE
    local data = readable and fs.read_file(path):try()
    found = found + 1
    if data and is_text(data) and not stopped then
      paths[#paths + 1] = path
      bytes = bytes + #data
      bar:step(#data)
    end
    stopped = found >= MAX_FOUND and grouped(MAX_FOUND) .. " entries found"
      or #paths >= MAX_FILES and grouped(MAX_FILES) .. " files read"
      or bytes >= MAX_BYTES and grouped(MAX_BYTES) .. " bytes read"
  end

  local walk <close> = fs.walk(dir, { stat = true, filter = on_this_device })
  local function next_entry()
    if not stopped then
      return walk()
    end
  end
  local _, err = task.pcall(task.with_timeout, SURVEY, task.for_each, next_entry, look, { limit = READERS })
  if err then
    if err.code ~= "ETIMEDOUT" then error(err, 0) end
    stopped = ("%g seconds"):format(SURVEY)
  end
  bar.total = bar.done
  return paths, bytes, stopped, err and found
end

local function tour(dir)
  local began = os.time()
  dir = await(fs.realpath(dir or default_directory()))
  say("asynctask: a tour of %s", dir)

  local paths, bytes, stopped, got = survey(dir)
  local limit = got or MAX_FOUND
  if stopped then
    say("  stopped at the limit of %s: the tour goes on with what it has", stopped)
  end
  local agree = true
  local function check(ok, what)
    if not ok then
      agree = false
      say("  DISAGREE: %s", what)
    end
  end

  local a, b = compare("walk the directory", "walk", dir, limit)
  if #a < limit and #b < limit then
    local path = missing(a, b, began)
    check(not path, ("only one of them found %s"):format(path))
  end

  local texts, plain_texts = compare(("read %s files, %s bytes"):format(grouped(#paths), grouped(bytes)), "read", paths)
  settle_changes(paths, texts, plain_texts)
  texts.n = nil
  local equal, where = same(texts, plain_texts)
  check(equal, ("the texts of %s differ"):format(paths[where]))

  local counts, plain_counts
  do
    local bar <close> = progress("counting on all cores", #texts)
    counts, plain_counts = compare("count their words", "count", texts, bar)
  end
  equal, where = same(counts, plain_counts)
  check(equal, ("the counts of '%s' differ"):format(where))

  local answers, plain_answers, err, waited = compare(("answer %d clients"):format(#QUESTIONS), "serve", counts)
  answers.n = nil
  equal, where = same(answers, plain_answers)
  check(equal, ("the answers to '%s' differ"):format(QUESTIONS[where]))
  check(err and err.code == "ETIMEDOUT", ("the slow client met no deadline, but: %s"):format(err))

  local words, distinct = 0, 0
  for _, n in pairs(counts) do
    words, distinct = words + n, distinct + 1
  end
  say("\n  %s words, %s different ones. The clients were told:", grouped(words), grouped(distinct))
  for i, question in ipairs(QUESTIONS) do
    say("    %-12s %s", question, answers[i] == "" and "(no such word)" or answers[i])
  end
  say("    %-12s after %.3f s: %s", "(slow one)", waited, err)

  print_table()
  say("\n  %s", agree and "Both results agree." or "THE RESULTS DO NOT AGREE.")
  return agree
end

local agree = task.main(tour, arg[1])
os.exit(agree and 0 or 1, true)
