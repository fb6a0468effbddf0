-- json.lua - JSON for requests and responses, by a library that is there: lua-cjson, or dkjson. None is
-- needed until somebody asks for JSON.

local M = {}

---@class asynctask.http.json
---@field encode fun(value: any): string raises what the library raises
---@field decode fun(text: string): any raises when the text is no JSON
---@field null any what stands for null

local function from_cjson()
  local found, cjson = pcall(require, "cjson")
  if found then
    return { encode = cjson.encode, decode = cjson.decode, null = cjson.null }
  end
end

local function from_dkjson()
  local found, dkjson = pcall(require, "dkjson")
  if not found then
    return nil
  end
  local function decode(text)
    local value, place, err = dkjson.decode(text, 1, dkjson.null)
    if err then
      error(err, 0)
    end
    if text:find("%S", place) then
      error(("text behind the value, at byte %d"):format(place), 0)
    end
    return value
  end
  return { encode = dkjson.encode, decode = decode, null = dkjson.null }
end

local json

---The library that was found first.
---@return asynctask.http.json
function M.library()
  json = json or from_cjson() or from_dkjson()
  if not json then
    error("JSON needs a library: install lua-cjson (Debian: lua-cjson; rock: lua-cjson) or dkjson (Debian: " ..
      "lua-dkjson; rock: dkjson)", 0)
  end
  return json
end

-- `http.json.encode`, `http.json.decode`, `http.json.null`, looked up at their first use.
M.json = setmetatable({}, {
  __index = function(_, name)
    return M.library()[name]
  end,
})

return M
