-- date.lua - dates as HTTP writes them (RFC 9110, 5.6.7), whatever the locale is. Pure functions.

local M = {}

local DAYS = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" }
local MONTHS = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" }
local month_of = {}
for i, name in ipairs(MONTHS) do
  month_of[name] = i
end

---@param time number seconds since the epoch
---@return string date "Sun, 06 Nov 1994 08:49:37 GMT"
function M.format(time)
  local d = os.date("!*t", math.floor(time))
  return ("%s, %02d %s %04d %02d:%02d:%02d GMT"):format(DAYS[d.wday], d.day, MONTHS[d.month], d.year, d.hour, d.min,
    d.sec)
end

-- Days since 1970-01-01 of a date of the Gregorian calendar, with years that begin in March.
local function days(year, month, day)
  if month <= 2 then
    year = year - 1
    month = month + 12
  end
  return 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 719469
end

-- A year of two digits is of this century unless that is more than 50 years ahead.
local function full_year(year)
  local now = os.date("!*t").year
  local full = now // 100 * 100 + year
  return full > now + 50 and full - 100 or full
end

---Reads the three forms that RFC 9110 asks to accept.
---@param text string
---@return integer? time seconds since the epoch; nil: it is no date
function M.parse(text)
  local day, month, year, h, m, s = text:match("^%a%a%a, (%d%d) (%a%a%a) (%d%d%d%d) (%d%d):(%d%d):(%d%d) GMT$")
  if not day then
    day, month, year, h, m, s = text:match("^%a+, (%d%d)%-(%a%a%a)%-(%d%d) (%d%d):(%d%d):(%d%d) GMT$")
    year = year and full_year(tonumber(year))
  end
  if not day then
    month, day, h, m, s, year = text:match("^%a%a%a (%a%a%a) ([ %d]%d) (%d%d):(%d%d):(%d%d) (%d%d%d%d)$")
  end
  month = month_of[month]
  day, h, m, s = tonumber(day), tonumber(h), tonumber(m), tonumber(s)
  if not month or day < 1 or day > 31 or h > 23 or m > 59 or s > 60 then
    return nil
  end
  return ((days(tonumber(year), month, day) * 24 + h) * 60 + m) * 60 + s
end

return M
