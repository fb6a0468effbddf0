-- routes.lua - the tree of a router: where a pattern's leaf is, and which leaf a path leads to. Plain tables and pure
-- functions.
--
-- A node: { parts = { text = node }, param = node, leaf = leaf, rest = leaf }. A leaf: { handlers = { METHOD =
-- function }, names = { METHOD = { name, ... } } }, or { mounted = function, names = { name, ... }, below = true in
-- `rest` }.

local check = require "asynctask.check"

local M = {}

local function child(node, part)
  local list = node.parts
  list[part] = list[part] or { parts = {} }
  return list[part]
end

-- The node of a pattern, and the names of its parameters; `kind`: "leaf", or "rest" where it ends in *name.
function M.place(root, pattern, name, arg)
  if type(pattern) ~= "string" or pattern:sub(1, 1) ~= "/" then
    check.bad(arg, name, ("path that begins with a slash expected, got %s"):format(
      type(pattern) == "string" and ("'%s'"):format(pattern) or check.type_name(pattern)))
  end
  local node, names = root, {}
  for part, at in pattern:gmatch("/([^/]*)()") do
    local sign, param = part:match("^([:*])(.*)$")
    if sign and not param:find("^[%a_][%w_]*$") or sign == "*" and at <= #pattern then
      check.bad(arg, name, ("'%s' is not :name, or *name at the end"):format(part))
    end
    names[#names + 1] = param
    if sign == "*" then
      return node, "rest", names
    elseif sign then
      node.param = node.param or { parts = {} }
      node = node.param
    else
      node = child(node, part)
    end
  end
  return node, "leaf", names
end

-- The leaf for the parts from i on, with the values of its parameters; the most particular one first.
local function find(node, parts, i, values, n)
  local part = parts[i]
  if not part then
    return node.leaf
  end
  local next_node = node.parts[part]
  local leaf = next_node and find(next_node, parts, i + 1, values, n)
  if leaf then
    return leaf
  end
  if node.param and part ~= "" then
    values[n + 1] = part
    leaf = find(node.param, parts, i + 1, values, n + 1)
    if leaf then
      return leaf
    end
  end
  if node.rest then
    values[n + 1] = table.concat(parts, "/", i)
    for j = n + 2, #values do
      values[j] = nil
    end
  end
  return node.rest
end

M.find = find

return M
