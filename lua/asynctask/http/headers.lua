-- headers.lua - a list of names and values: the headers of a message, whose names have no case, and the
-- fields of queries and forms, whose names do. What is repeated is kept, in order.
--
-- An object is { [0] = { name = value }, name, value, name, value ... }; the map has one value for each name.

local M = {}

local function all(self, name)
  local list = {}
  for i = 1, #self, 2 do
    if rawget(self, i) == name then
      list[#list + 1] = rawget(self, i + 1)
    end
  end
  return list
end

---The headers of a message: `headers["Content-Type"]`, names in any case; nil for one that is not there. Of one
---that came several times the values are joined with ", " (Cookie: "; "), as RFC 9110, 5.3 allows; `all` has them
---one by one. `pairs` visits every name (in lower case) and value in the order in which they came. A header whose
---name is that of a method is read with `get`.
---@class asynctask.http.Headers
---@field [string] string?
local Headers = {}

---@param name string
---@return string? value
function Headers:get(name)
  local map = rawget(self, 0)
  return map[name] or map[name:lower()]
end

---All values of one name.
---@param name string
---@return string[] values empty when there is none
function Headers:all(name)
  return all(self, name:lower())
end

-- For `pairs`, of both classes: the state is a cell with the place.
local function visit(cell)
  local i, list = cell[1], cell[2]
  cell[1] = i + 2
  return rawget(list, i), rawget(list, i + 1)
end

local function pairs_of(self)
  return visit, { 1, self }
end

M.headers_meta = {
  __name = "asynctask.http.Headers",
  __index = function(self, name)
    local method = Headers[name]
    if method then
      return method
    end
    return type(name) == "string" and Headers.get(self, name) or nil
  end,
  __pairs = pairs_of,
}

---The fields of a query or a form: `fields.name` is the first value of that name (case counts), nil when there is none.
---`pairs` visits all names and values in order; `part` and `parts` give the files of a form. A field whose name is that
---of a method is read with `get`.
---@class asynctask.http.Fields
---@field [string] string?
local Fields = {}

---@param name string
---@return string? value the first one
function Fields:get(name)
  return rawget(self, 0)[name]
end

---All values of one name.
---@param name string
---@return string[] values
function Fields:all(name)
  return all(self, name)
end

---The part that a field of multipart/form-data came in: `{ name=, filename=, type=, data= }`; nil for other forms.
---@param name string
---@return asynctask.http.Part? part the first one of that name
function Fields:part(name)
  for _, part in ipairs(self:parts()) do
    if part.name == name then
      return part
    end
  end
end

---All parts of multipart/form-data, in order; none for other forms.
---@return asynctask.http.Part[]
function Fields:parts()
  return rawget(self, -1) or {}
end

M.fields_meta = {
  __name = "asynctask.http.Fields",
  __index = function(self, name)
    return Fields[name] or rawget(self, 0)[name]
  end,
  __pairs = pairs_of,
}

---The fields of a form in parts.
---@param parts asynctask.http.Part[]
---@return asynctask.http.Fields
function M.fields_of(parts)
  local list, map = { [-1] = parts }, {}
  for _, part in ipairs(parts) do
    list[#list + 1] = part.name
    list[#list + 1] = part.data
    map[part.name] = map[part.name] or part.data
  end
  list[0] = map
  return setmetatable(list, M.fields_meta)
end

---Headers out of a table of names with a value or a list of values, a list { name, value, name, value ... }, or
---other headers. Names are put in lower case.
---@param from table
---@return asynctask.http.Headers
function M.headers(from)
  local list, map, repeated = {}, {}, {}
  local function add(name, value)
    name, value = name:lower(), tostring(value)
    list[#list + 1] = name
    list[#list + 1] = value
    repeated[name] = map[name] ~= nil or nil
    map[name] = value
  end
  if from[1] ~= nil then
    for i = 1, #from, 2 do
      add(rawget(from, i), rawget(from, i + 1))
    end
  else
    local names = {}
    for name in pairs(from) do
      names[#names + 1] = name
    end
    table.sort(names)
    for _, name in ipairs(names) do
      local value = from[name]
      if type(value) == "table" then
        for _, one in ipairs(value) do
          add(name, one)
        end
      else
        add(name, value)
      end
    end
  end
  for name in pairs(repeated) do -- at the end: joined one by one, many would take the square of their size
    map[name] = table.concat(all(list, name), name == "cookie" and "; " or ", ")
  end
  list[0] = map
  return setmetatable(list, M.headers_meta)
end

return M
