-- multipart.lua - multipart/form-data bodies (RFC 7578), streamed: files are read through asynctask.fs while the body
-- is sent, so that neither memory nor the loop has to hold them. (Curl's own mime API reads files with fread on the
-- thread that calls it.)

local core = require "asynctask.core"
local fs = require "asynctask.fs"
local check = require "asynctask.check"
local escape = require "asynctask.http.client.escape"

local await = core.await

local CHUNK = 65536 -- bytes

local multipart = {}

-- In quotes: what ends them, or the line, is escaped as browsers do (WHATWG HTML, 4.10.21.8).
local CODES = { ['"'] = "%22", ["\r"] = "%0D", ["\n"] = "%0A" }

local function quoted(s)
  return '"' .. s:gsub('["\r\n]', CODES) .. '"'
end

local function check_part(part, name)
  check.expect(type(part) == "table", 2, name, "option 'multipart': table or string as a part", part)
  local label = part.name
  if type(label) ~= "string" then
    check.bad(2, name, "option 'multipart': a part without a name")
  end
  if (part.data == nil) == (part.file == nil) then
    check.bad(2, name, ("option 'multipart': part '%s' needs either data or file"):format(label))
  end
  for _, field in ipairs { "data", "file", "filename", "type" } do
    local value = part[field]
    if value ~= nil and type(value) ~= "string" then
      check.bad(2, name, ("option 'multipart': part '%s': %s is no string"):format(label, field))
    end
  end
  if part.type and not escape.is_value(part.type) then
    check.bad(2, name, ("option 'multipart': part '%s': type has a line end"):format(label))
  end
end

-- A list of parts, out of a list or a map of names.
local function parts_of(from, name)
  local parts = {}
  if from[1] ~= nil then
    for i, part in ipairs(from) do
      parts[i] = part
    end
  else
    for label, value in pairs(from) do
      local part = {}
      if type(value) == "table" then
        for k, v in pairs(value) do
          part[k] = v
        end
      else
        part.data = tostring(value)
      end
      part.name = part.name or tostring(label)
      parts[#parts + 1] = part
    end
    table.sort(parts, function(a, b) return a.name < b.name end)
  end
  for _, part in ipairs(parts) do
    check_part(part, name)
  end
  return parts
end

local function boundary()
  local digits = {}
  for i = 1, 4 do
    digits[i] = ("%08x"):format(math.random(0, 0xffffffff))
  end
  return "asynctask-" .. table.concat(digits)
end

local function head_of(part, mark)
  local filename = part.filename or part.file and part.file:match("[^/]*$")
  local lines = {
    "--" .. mark,
    "Content-Disposition: form-data; name=" .. quoted(part.name) ..
      (filename and "; filename=" .. quoted(filename) or ""),
  }
  local kind = part.type or filename and "application/octet-stream"
  if kind then
    lines[#lines + 1] = "Content-Type: " .. kind
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

-- Sends the whole body, piece by piece.
local function write(parts, mark, put)
  for _, part in ipairs(parts) do
    put(head_of(part, mark))
    if part.data then
      put(part.data)
    else
      local file <close> = await(fs.open(part.file, "rb"))
      for chunk in function() return await(file:read(CHUNK)) end do
        put(chunk)
      end
    end
    put "\r\n"
  end
  put("--" .. mark .. "--\r\n")
end

---The body as `asynctask.http.client.body` describes bodies. Wrong parts raise.
---@param from table
---@param name string of the function that was called
---@return table
function multipart.new(from, name)
  local parts, mark = parts_of(from, name), boundary()
  return {
    type = "multipart/form-data; boundary=" .. mark,
    again = true,
    measure = function()
      local total = #mark + 6
      for _, part in ipairs(parts) do
        total = total + #head_of(part, mark) + 2 + (part.data and #part.data or await(fs.stat(part.file)).size)
      end
      return total
    end,
    write = function(put)
      write(parts, mark, put)
    end,
  }
end

return multipart
