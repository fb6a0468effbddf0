-- Certificates for specs, made once in a run by the openssl command in a directory of their own: an authority, what it
-- has issued, and what nobody should accept. EC keys, so that making them takes no time.

local child = require "spec.support.child"

local certificates = {}

-- Shell functions: authority NAME, and issue NAME SUBJECT EXTENSIONS [options of openssl x509]
local SCRIPT = [[
set -e
cd %s
key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }
authority() {
  key "$1"
  openssl req -x509 -new -key "$1.key" -days 30 -out "$1.pem" -subj "/O=specs/CN=$1"
}
issue() {
  name=$1 subject=$2 extensions=$3; shift 3
  key "$name"
  openssl req -new -key "$name.key" -subj "$subject" -out "$name.csr"
  printf '%%s\n' "$extensions" > "$name.ext"
  openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -extfile "$name.ext" -out "$name.pem" "$@"
}
authority ca
authority other
issue server /O=specs/CN=server "subjectAltName=DNS:localhost,DNS:*.wild.test,IP:127.0.0.1" -days 30
issue wrong /O=specs/CN=localhost "subjectAltName=DNS:elsewhere.test" -days 30
issue common /O=specs/CN=localhost "basicConstraints=CA:FALSE" -days 30
issue named /O=specs/CN=named "subjectAltName=DNS:named.test" -days 30
issue client /O=specs/CN=client "extendedKeyUsage=clientAuth" -days 30
issue expired /O=specs/CN=expired "subjectAltName=DNS:localhost" -days 0
key self
openssl req -x509 -new -key self.key -days 30 -out self.pem -subj /O=specs/CN=self -addext subjectAltName=DNS:localhost
openssl ec -in server.key -aes128 -passout pass:secret -out locked.key
cat server.pem ca.pem > chain.pem
]]

--- The directory, made at the first call and removed when the process ends: ca, other (authorities), server
--- (localhost, *.wild.test, 127.0.0.1), wrong (another name), common (its name in the subject only), named
--- (named.test), client, expired, self (signed by itself), each NAME.pem and NAME.key; locked.key (password "secret").
---@return fun(name: string): string path
function certificates.make()
  local kept = child.certificates -- that table is shared by all spec files
  if not kept then
    local output = child.shell "mktemp -d"
    kept = setmetatable({ directory = output:match "^[^\n]+" }, {
      __gc = function(self)
        os.execute("rm -rf " .. child.quote(self.directory))
      end,
    })
    local said, code = child.shell(SCRIPT:format(child.quote(kept.directory)))
    assert(code == 0, said)
    child.certificates = kept
  end
  return function(name)
    return kept.directory .. "/" .. name
  end
end

--- The text of one of its files.
---@param name string
---@return string
function certificates.read(name)
  local f = assert(io.open(certificates.make()(name), "rb"))
  local text = f:read "a"
  f:close()
  return text
end

--- The module asynctask.tls; or nil after a spec that says what is missing.
---@param describe function busted's
---@param pending function busted's
---@return table?
function certificates.tls(describe, pending)
  local found, tls = pcall(require, "asynctask.tls")
  local missing = not found and tostring(tls):match "^[^\n]*"
  if found and select(2, child.shell "openssl version") ~= 0 then
    missing = "there is no openssl command to make certificates with"
  end
  if missing then
    describe("asynctask.tls", function()
      pending(missing)
    end)
    return nil
  end
  return tls
end

return certificates
