-- Handlers that servers on several threads find by name.

local handlers = {}

function handlers.shout(stream)
  local await = require("asynctask").await
  for line in stream:lines() do
    await(stream:write(line:upper(), "\n"))
  end
end

return handlers
