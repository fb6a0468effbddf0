-- files.lua - a handler that answers with the files of a directory: `http.files`. Opening, which never leaves the
-- directory, is fs.open's (`beneath`); conditions and ranges are read in conditions.lua. Runs in the request's task.

local core = require "asynctask.core"
local check = require "asynctask.check"
local conditions = require "asynctask.http.conditions"
local date = require "asynctask.http.date"
local fs = require "asynctask.fs"
local types = require "asynctask.http.types"

local await, try, from_result = core.await, core.try, core.from_result

local SMALL <const> = 64 * 1024  -- bytes that are sent with the head
local PIECE <const> = 256 * 1024 -- bytes that are read at a time

local M = {}

-- ---- names ---------------------------------------------------------------------------------------

-- The name of the file that a decoded path stands for, or nil: no zero byte, no backslash, no part that is empty or
-- made of dots, none that begins with one unless that is allowed.
local function name_of(path, opts)
  if path:sub(1, 1) ~= "/" or path:find("[%z\\]") then
    return nil
  end
  local name = path:sub(2)
  for part in name:gmatch("[^/]+") do
    if part:find("^%.+$") or part:sub(1, 1) == "." and not opts.dotfiles then
      return nil
    end
  end
  if name:find("//", 1, true) or name:sub(1, 1) == "/" then
    return nil
  elseif name == "" or name:sub(-1) == "/" then
    return opts.index and name .. opts.index
  end
  return name
end

local function open(directory, name)
  return try(fs.open(name, "rb", { beneath = directory }))
end

-- ---- bodies --------------------------------------------------------------------------------------

-- A body for the server: texts, and ranges { first byte, size } of a file, one after another.
local Pieces = {}
Pieces.__index = Pieces
Pieces.__name = "asynctask.http.files.Pieces"

function Pieces:read_some()
  local piece = self[self.at]
  if type(piece) ~= "table" then
    self.at = self.at + 1
    return from_result(piece)
  end
  local first, size = piece[1], math.min(piece[2], PIECE)
  piece[1], piece[2] = first + size, piece[2] - size
  if piece[2] == 0 then
    self.at = self.at + 1
  end
  return self.file:read_at(first, size)
end

function Pieces:__close()
  local t = self.file:close()
  if not t:done() then
    core.shield(try, t)
  end
end

local function pieces(file, list)
  list.file, list.at = file, 1
  return setmetatable(list, Pieces)
end

-- The bytes [first, first + size) of the file: a string if they are few.
local function body_of(file, first, size)
  if size > SMALL then
    return pieces(file, { { first, size } })
  end
  local _ <close> = file
  local data = size == 0 and "" or await(file:read_at(first, size))
  if #(data or "") < size then
    error(core.error { code = "EIO", op = "read", message = "the file was cut while it was read" }, 0)
  end
  return data
end

-- multipart/byteranges (RFC 9110, 14.6). Gives body, size and type.
local function multipart(file, ranges, size, content_type, tag)
  local boundary = ("lua%s%x"):format(tag:gsub("%W", ""), math.random(0))
  local list, total = {}, 0
  for _, range in ipairs(ranges) do
    local first, last = range[1], range[2]
    local head = ("\r\n--%s\r\nContent-Type: %s\r\nContent-Range: bytes %d-%d/%d\r\n\r\n"):format(boundary,
      content_type, first, last, size)
    list[#list + 1] = head
    list[#list + 1] = { first, last - first + 1 }
    total = total + #head + last - first + 1
  end
  local tail = ("\r\n--%s--\r\n"):format(boundary)
  list[#list + 1] = tail
  return pieces(file, list), total + #tail, "multipart/byteranges; boundary=" .. boundary
end

-- ---- answers -------------------------------------------------------------------------------------

local function plain(status, text)
  return status, { ["content-type"] = "text/plain; charset=utf-8" }, text .. "\n"
end

local MISSING = { ENOENT = true, ENOTDIR = true, EXDEV = true, ELOOP = true, ENAMETOOLONG = true, EINVAL = true }

local function missing(req, opts)
  if opts.fallback then
    return opts.fallback(req)
  end
  return plain(404, "not found")
end

-- The same path with a slash: relative links in an index count from there.
local function to_directory(req)
  local path = req.raw_path or req.path
  if not path:find("^/[^/\\]") then
    return plain(404, "not found")
  end
  local status, headers, body = plain(301, "moved")
  headers.location = path .. "/" .. (req.raw_query and "?" .. req.raw_query or "")
  return status, headers, body
end

local CODINGS = { "br", "zstd", "gzip" }
local ENDINGS = { br = ".br", zstd = ".zst", gzip = ".gz" }

-- The file compressed beforehand that the client likes best, if there is one that is not older: it, its stat, the
-- coding.
local function variant(directory, name, req, info)
  for _, coding in ipairs(conditions.codings(req.headers["accept-encoding"], CODINGS)) do
    local file = open(directory, name .. ENDINGS[coding])
    local its_info = file and await(file:stat())
    if file and its_info.type == "file" and its_info.mtime >= info.mtime then
      return file, its_info, coding
    elseif file then
      await(file:close())
    end
  end
end

local function headers_of(name, info, coding, content_type, opts)
  local mtime = math.floor(info.mtime)
  local tag = ('"%x-%x%s"'):format(math.floor(info.mtime * 1000000), info.size, coding and "-" .. coding or "")
  local headers = {
    ["content-type"] = content_type, etag = tag, ["last-modified"] = date.format(mtime), ["accept-ranges"] = "bytes",
    ["x-content-type-options"] = "nosniff", ["content-encoding"] = coding,
  }
  local cache = opts.cache_control
  if type(cache) == "function" then
    cache = cache(name)
  end
  headers["cache-control"] = cache
  return headers, tag, mtime
end

local function without_body(file, status, headers, text)
  await(file:close())
  if status == 304 then
    for _, name in ipairs { "content-type", "content-encoding", "accept-ranges", "x-content-type-options" } do
      headers[name] = nil
    end
    return 304, headers
  end
  return plain(status, text)
end

-- Answers with an open file.
local function answer(req, file, info, headers, tag, mtime)
  local size, status = info.size, conditions.status(req.headers, tag, mtime)
  if status then
    return without_body(file, status, headers, "precondition failed")
  end
  local ranges = req.method == "GET" and conditions.ranges(req.headers, tag, mtime, size)
  if not ranges then
    headers["content-length"] = size
    if req.method == "HEAD" then
      await(file:close())
      return 200, headers
    end
    return 200, headers, body_of(file, 0, size)
  elseif #ranges == 0 then
    local code, short, text = without_body(file, 416, headers, "range not satisfiable")
    short["content-range"] = ("bytes */%d"):format(size)
    return code, short, text
  elseif #ranges == 1 then
    local first, last = ranges[1][1], ranges[1][2]
    headers["content-range"] = ("bytes %d-%d/%d"):format(first, last, size)
    headers["content-length"] = last - first + 1
    return 206, headers, body_of(file, first, last - first + 1)
  end
  local body, total, kind = multipart(file, ranges, size, headers["content-type"], tag)
  headers["content-type"], headers["content-length"] = kind, total
  return 206, headers, body
end

-- The file is closed unless its body has it.
local close_meta = {
  __close = function(held, err)
    if err ~= nil and held.file then
      held.file:close()
    end
  end,
}

local function serve(directory, name, req, opts)
  local file, err = open(directory, name)
  if not file then
    if err.code == "EISDIR" and req.path:sub(-1) ~= "/" and opts.index then
      return to_directory(req)
    elseif err.code == "EISDIR" or MISSING[err.code] then
      return missing(req, opts)
    elseif err.code == "EACCES" then
      return plain(403, "forbidden")
    end
    error(err, 0)
  end
  local held <close> = setmetatable({ file = file }, close_meta)
  local info, coding = await(file:stat()), nil
  if info.type ~= "file" then
    await(file:close())
    return missing(req, opts)
  end
  local content_type = types.content_type(name, opts.types)
  local varies = opts.precompressed and types.compressible(content_type)
  if varies then
    local other, its_info, its_coding = variant(directory, name, req, info)
    if other then
      file:close()
      file, info, coding, held.file = other, its_info, its_coding, other
    end
  end
  local headers, tag, mtime = headers_of(name, info, coding, content_type, opts)
  headers.vary = varies and "Accept-Encoding" or nil
  return answer(req, file, info, headers, tag, mtime)
end

-- ---- the handler ---------------------------------------------------------------------------------

local function name_or_false(v)
  return v == false or type(v) == "string" and v ~= "" and not v:find("[/%z]"), "name or false"
end

local function is_table(v)
  return type(v) == "table", "table"
end

local function text_or_function(v)
  return type(v) == "string" or type(v) == "function", "string or function"
end

local options = {
  index = name_or_false, types = is_table, cache_control = text_or_function, precompressed = check.boolean,
  dotfiles = check.boolean, fallback = check.callable,
}

---@class asynctask.http.files_options
---@field index? string|false the file that a path with a slash at the end stands for ("index.html"); false: none
---@field types? table<string, string> media types by the ending of names ("html"), before those that are known
---@field cache_control? string|fun(name: string): string? the field Cache-Control
---@field precompressed? boolean send name.br, name.zst or name.gz in place of a text file, where it is not older and
---the client takes it
---@field dotfiles? boolean also files and directories whose name begins with a dot
---@field fallback? fun(req: asynctask.http.Request): ... answers where there is no file, in place of 404

---A handler that answers GET and HEAD with the files of a directory: types, ranges, ETag and Last-Modified, conditions
---(RFC 9110, 13 and 14). Nothing outside the directory is ever opened, through links neither. The path is `req.path`,
---so the handler can be mounted: `router:mount("/static", http.files "public")`.
---@param directory string
---@param opts? asynctask.http.files_options
---@return fun(req: asynctask.http.Request): integer, table?, any
function M.files(directory, opts)
  check.expect(type(directory) == "string" and directory ~= "", 1, "files", "path of a directory", directory)
  local given = check.options(opts, 2, "files", options)
  local own = {}
  for name, value in pairs(given) do
    own[name] = value
  end
  if own.index == nil then
    own.index = "index.html"
  end
  return function(req)
    if req.method ~= "GET" and req.method ~= "HEAD" then
      local status, headers, body = plain(405, "method not allowed")
      headers.allow = "GET, HEAD"
      return status, headers, body
    end
    local name = name_of(req.path, own)
    if not name then
      return missing(req, own)
    end
    return serve(directory, name, req, own)
  end
end

return M
