-- escape.lua - names and values as they stand in URLs and forms (WHATWG URL, 5.2: application/x-www-form-urlencoded),
-- and what headers may contain (RFC 9110, 5.1 and 5.5).

local escape = {}

local function byte_code(c)
  return ("%%%02X"):format(c:byte())
end

---@param s string
---@return string
function escape.form(s)
  return (s:gsub("[^%w%-._* ]", byte_code):gsub(" ", "+"))
end

local form = escape.form

local function add(parts, name, value)
  if value == true then
    value = "true"
  elseif value == false then
    value = "false"
  end
  parts[#parts + 1] = form(tostring(name)) .. "=" .. form(tostring(value))
end

---`a=1&b=2` out of a table of names with a value or a list of values (by name), or a list of pairs `{ name, value }`
---(in its order).
---@param fields table
---@return string
function escape.fields(fields)
  local parts = {}
  if type(fields[1]) == "table" then
    for _, pair in ipairs(fields) do
      add(parts, pair[1], pair[2])
    end
    return table.concat(parts, "&")
  end
  local names = {}
  for name in pairs(fields) do
    names[#names + 1] = name
  end
  table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
  for _, name in ipairs(names) do
    local value = fields[name]
    if type(value) == "table" then
      for _, one in ipairs(value) do
        add(parts, name, one)
      end
    else
      add(parts, name, value)
    end
  end
  return table.concat(parts, "&")
end

---Whether it can be a method or the name of a header: a token.
---@param s any
---@return boolean
function escape.is_token(s)
  return type(s) == "string" and s:find("^[!#$%%&'*+%-.^_`|~%w]+$") ~= nil
end

---Whether it can be a header's value: no line ends, no zero bytes.
---@param s string
---@return boolean
function escape.is_value(s)
  return not s:find("[\r\n%z]")
end

return escape
