-- conditions.lua - what a request's conditions and ranges ask of a representation (RFC 9110, sections 13 and 14). Pure
-- functions; `headers` is anything that is indexed by names in lower case.

local date = require "asynctask.http.date"

local M = {}

local MOST <const> = 16 -- ranges that are answered one by one

-- Does the list of tags have this one? Weakly: whether either is marked W/ does not count.
local function has_tag(list, tag, weakly)
  if list:match("^%s*%*%s*$") then
    return true
  end
  for weak, one in list:gmatch('(W?/?)("[^"]*")') do
    if one == tag and (weakly or weak ~= "W/") then
      return true
    end
  end
  return false
end

---The status with which a GET or HEAD is answered because of its conditions: 304, 412, or nil (RFC 9110, 13.2.2).
---@param headers table<string, string?>
---@param tag string strong
---@param time integer seconds since the epoch of the last change
---@return integer?
function M.status(headers, tag, time)
  local match, none = headers["if-match"], headers["if-none-match"]
  if match then
    if not has_tag(match, tag, false) then
      return 412
    end
  else
    local since = date.parse(headers["if-unmodified-since"] or "")
    if since and time > since then
      return 412
    end
  end
  if none then
    return has_tag(none, tag, true) and 304 or nil
  end
  local since = date.parse(headers["if-modified-since"] or "")
  return since and time <= since and 304 or nil
end

-- If-Range: the ranges are wanted of this very representation.
local function range_applies(headers, tag, time)
  local wanted = headers["if-range"]
  return not wanted or wanted == tag or date.parse(wanted) == time
end

-- One spec of a Range: first and last byte, false where the size is too small for it; nil: no range at all.
local function one_range(spec, size)
  local first, last = spec:match("^%s*(%d*)%-(%d*)%s*$")
  if not first or first == "" and last == "" or #first > 18 or #last > 18 then
    return nil
  end
  first, last = tonumber(first), tonumber(last)
  if not first then
    if last == 0 or size == 0 then
      return false
    end
    return math.max(size - last, 0), size - 1
  elseif last and last < first then
    return nil
  elseif first >= size then
    return false
  end
  return first, math.min(last or size - 1, size - 1)
end

---The ranges of bytes that a GET asks for.
---@param headers table<string, string?>
---@param tag string
---@param time integer
---@param size integer
---@return { [1]: integer, [2]: integer }[]|nil ranges first and last byte, from 0 on; empty: none can be satisfied
---(416); nil: send everything (no range, one that is not understood, or so many that everything is less work)
function M.ranges(headers, tag, time, size)
  local list = (headers.range or ""):match("^[Bb][Yy][Tt][Ee][Ss]%s*=(.*)$")
  if not list or not range_applies(headers, tag, time) then
    return nil
  end
  local found, total, count = {}, 0, 0
  for spec in (list .. ","):gmatch("([^,]*),") do
    if spec:find("%S") then
      local first, last = one_range(spec, size)
      count = count + 1
      if first == nil or count > MOST then
        return nil
      elseif first then
        found[#found + 1] = { first, last }
        total = total + last - first + 1
      end
    end
  end
  if count == 0 or #found > 1 and total > size then
    return nil
  end
  return found
end

-- The weight of a coding in Accept-Encoding, nil when it is not named.
local function weight(list, coding)
  for item in list:gmatch("[^,]+") do
    local name, parameters = item:match("^%s*([^%s;]+)%s*(.*)$")
    if name and (name:lower() == coding or coding == "gzip" and name:lower() == "x-gzip") then
      return tonumber(parameters:match("^;%s*[qQ]=([%d.]+)%s*$")) or parameters == "" and 1 or 0
    end
  end
end

---The codings that a client takes, the ones that it likes best first; of equal ones the earlier of `known`.
---@param accept string? Accept-Encoding
---@param known string[] in the order of preference
---@return string[]
function M.codings(accept, known)
  if not accept then
    return {}
  end
  local any, list, weights, place = weight(accept, "*") or 0, {}, {}, {}
  for i, coding in ipairs(known) do
    weights[coding], place[coding] = weight(accept, coding) or any, i
    if weights[coding] > 0 then
      list[#list + 1] = coding
    end
  end
  table.sort(list, function(a, b)
    if weights[a] ~= weights[b] then
      return weights[a] > weights[b]
    end
    return place[a] < place[b]
  end)
  return list
end

return M
