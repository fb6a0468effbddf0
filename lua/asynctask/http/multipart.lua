-- multipart.lua - takes forms with files apart (multipart/form-data, RFC 7578). Pure text; the body's limit bounds it.

local M = {}

---One part of a form.
---@class asynctask.http.Part
---@field name string of the field
---@field filename? string as the client gave it: never a path to write to
---@field type? string its Content-Type
---@field data string

-- The parameters of a header's value: `; name="a b"; x=y`. Browsers write a quote in a name as %22.
local function parameters(value)
  local found = {}
  for name, text in value:gmatch ';%s*([%w%-]+)%s*=%s*"([^"]*)"' do
    found[name:lower()] = found[name:lower()] or text:gsub("%%22", '"')
  end
  for name, text in value:gmatch ";%s*([%w%-]+)%s*=%s*([^%s;\"]+)" do
    found[name:lower()] = found[name:lower()] or text
  end
  return found
end

---The boundary that a Content-Type names.
---@param content_type string
---@return string? boundary
function M.boundary(content_type)
  local boundary = parameters(content_type).boundary
  return boundary and #boundary <= 70 and boundary or nil
end

-- A part's description out of its header lines; nil without a name.
local function describe(lines, data)
  local part, at = { data = data }, 1
  while true do -- line by line: a pattern over all of them could take the square of their size
    local line_end = lines:find("\r\n", at, true)
    if not line_end then
      break
    end
    local name, value = lines:sub(at, line_end - 1):match "^([^%s:]+):[ \t]*(.*)$"
    at, name = line_end + 2, name and name:lower()
    if name == "content-disposition" and value:lower():find("^form%-data%s*;") then
      local found = parameters(value)
      part.name, part.filename = found.name, found.filename
    elseif name == "content-type" then
      part.type = value
    end
  end
  return part.name and part or nil
end

-- Behind the first boundary, or nil.
local function first(text, mark)
  if text:sub(1, #mark) == mark then
    return #mark + 1
  end
  local _, last = text:find("\r\n" .. mark, 1, true)
  return last and last + 1
end

---The parts of a body.
---@param text string
---@param boundary string
---@param most integer parts
---@return asynctask.http.Part[]|false|nil parts nil: the body is none; false: there are more
function M.parse(text, boundary, most)
  local parts, mark = {}, "--" .. boundary
  local at, delimiter = first(text, mark), "\r\n" .. mark
  while at do
    if text:sub(at, at + 1) == "--" then
      return parts
    end
    local _, line_end = text:find("^[ \t]*\r\n", at)
    local head_end, data_at
    if line_end then
      head_end, data_at = text:find("\r\n\r\n", line_end - 1, true)
    end
    local data_end, next_at
    if data_at then
      data_end, next_at = text:find(delimiter, data_at - 1, true)
    end
    local part = data_end and describe(text:sub(line_end + 1, head_end + 1), text:sub(data_at + 1, data_end - 1))
    if not part then
      return nil
    end
    if #parts == most then
      return false
    end
    parts[#parts + 1] = part
    at = next_at + 1
  end
  return nil
end

return M
