-- download.lua - a URL into a file, atomically: the bytes go into a file beside it, which is renamed when it is
-- complete and stored. With `resume`, what a failed download has got stays there, as PATH.part, and the next one goes
-- on behind it, if the server says that the resource is still the same (If-Range: RFC 9110, 13.1.5).

local core = require "asynctask.core"
local check = require "asynctask.check"
local client_module = require "asynctask.http.client"
local exchange = require "asynctask.http.client.exchange"
local fs = require "asynctask.fs"
local reply = require "asynctask.http.client.reply"

local await, try = core.await, core.try
local header = exchange.header

local download = {}

---@class asynctask.http.DownloadOptions: asynctask.http.Options
---@field progress? fun(bytes: integer, total?: integer) as the file grows: its size so far, and in the end
---@field resume? boolean keeps what a failed download got, and goes on with it
local own_options = { progress = check.callable, resume = check.boolean }

-- What tells versions of a resource apart for sure, or nil: a strong ETag, else a date.
local function version_of(list)
  local tag = header(list, "etag")
  if tag then
    return tag:sub(1, 2) ~= "W/" and tag or nil
  end
  return header(list, "last-modified")
end

-- How much is there from the last time, and of which version; 0 when nothing can be used.
local function begun(part)
  local stat, version = try(fs.stat(part)), try(fs.read_file(part .. "-of"))
  if not stat or not version or stat.size == 0 then
    return 0
  end
  return stat.size, version
end

local function forget(part)
  try(fs.remove(part))
  try(fs.remove(part .. "-of"))
end

-- The request's headers with more of them.
local function with(list, more)
  local all = table.move(list, 1, #list, 1, {})
  for _, pair in ipairs(more) do
    all[#all + 1] = pair
  end
  return all
end

-- "bytes 100-199/200" -> 100, 200
local function range_of(list)
  local from, total = (header(list, "content-range") or ""):match("^bytes (%d+)%-%d+/([%d*]+)$")
  return math.tointeger(tonumber(from)), math.tointeger(tonumber(total))
end

local function fail(answer, code, message)
  error(core.error { code = code, op = answer.method, address = answer.url, url = answer.url, message = message }, 0)
end

-- Asks for what is missing behind `size`; gives the answer, and what it continues (0: it is the whole).
local function ask(client, req, size, version)
  local headers, at, body = req.headers, req.at, req.body
  local more = { { "Accept-Encoding", "identity" } }
  if size > 0 then
    more[2], more[3] = { "Range", ("bytes=%d-"):format(size) }, { "If-Range", version }
  end
  req.headers = with(headers, more)
  local answer = exchange.run(client, req)
  if size == 0 then
    return answer, 0
  end
  if answer.status == 206 and range_of(answer[1]) == size then
    return answer, size
  elseif answer.status == 416 or answer.status == 206 then -- it is shorter now, or this is another part
    answer.stream:close()
    req.headers, req.at, req.body = headers, at, body
    return ask(client, req, 0)
  end
  return answer, 0
end

local function copy(answer, file, size, total, progress)
  while true do
    local chunk = reply.chunk(answer)
    if not chunk then
      return size
    end
    await(file:write(chunk))
    size = size + #chunk
    if progress then
      progress(size, total)
    end
  end
end

local function fetch(client, req, path, part, o)
  local size, version = 0, nil
  if o.resume then
    size, version = begun(part)
  end
  local answer, from = ask(client, req, size, version)
  if answer.status >= 400 then
    local err = client_module.http_failure(answer)
    answer.stream:close()
    error(err, 0)
  end
  local _, total = range_of(answer[1])
  if from == 0 then
    total = not header(answer[1], "content-encoding") and
      math.tointeger(tonumber(header(answer[1], "content-length"))) or nil
  end
  do
    local file <close> = await(fs.open(part, from > 0 and "ab" or "wb"))
    if o.resume and from == 0 then
      local now_of = version_of(answer[1])
      if now_of then
        await(fs.write_file(part .. "-of", now_of))
      else
        try(fs.remove(part .. "-of"))
      end
    end
    size = copy(answer, file, from, total, o.progress)
    if total and size ~= total then
      fail(answer, "EOF", ("%d bytes came of %d"):format(size, total))
    end
    await(file:sync())
  end
  await(fs.rename(part, path))
  if o.resume then
    try(fs.remove(part .. "-of"))
  end
  return size
end

local names = 0

function download.start(client, url, path, opts)
  check.expect(type(path) == "string" and path ~= "", 2, "download", "path", path)
  check.expect(opts == nil or type(opts) == "table", 3, "download", "table of options", opts)
  local o, rest = {}, {}
  for key, value in pairs(opts or {}) do
    (own_options[key] and o or rest)[key] = value
  end
  check.options(o, 3, "download", own_options)
  rest.decompress = false
  local req = client_module.prepare(client, "GET", url, rest, "download")
  local part = path .. ".part"
  if not o.resume then
    names = names + 1
    part = ("%s.part-%x-%d"):format(path, math.random(0, 0xffffff), names)
  end
  return core.start(function()
    local done = false
    local _ <close> = setmetatable({}, { __close = function()
      if not done and not o.resume then
        core.shield(forget, part)
      end
    end })
    local size = fetch(client, req, path, part, o)
    done = true
    return size
  end):named "a download"
end

return download
