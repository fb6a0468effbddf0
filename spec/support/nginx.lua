-- nginx for the specs of the HTTP client: HTTP/1.1 and HTTP/2, with and without TLS, with good and bad certificates
-- that are made for the run. It is a process of its own (a daemon), which the specs stop by its pid.

local child = require("spec.support.child")
local net = require "asynctask.net"
local task = require "asynctask"

local await = task.await
local q = child.quote

local nginx = {}

local function shell(command)
  local output, code = child.shell(command)
  assert(code == 0, output)
  return output
end

--- Whether nginx and openssl are installed.
---@return boolean
function nginx.available()
  local _, code = child.shell("PATH=$PATH:/usr/sbin; command -v nginx && command -v openssl")
  return code == 0
end

-- Every certificate that the specs need, signed by a CA of their own.
local CERTIFICATES = [[
set -e
cd %s
openssl ecparam -name prime256v1 -genkey -noout -out key.pem
openssl ecparam -name prime256v1 -genkey -noout -out ca.key
openssl req -x509 -new -key ca.key -days 30 -subj "/CN=Specs CA" -out ca.pem
sign() { # name, subjectAltName, days
  openssl req -new -key key.pem -subj "/CN=$1" -out $1.csr
  printf 'subjectAltName=%%s\n' "$2" > $1.ext
  openssl x509 -req -in $1.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days $3 -extfile $1.ext -out $1.pem
}
sign good DNS:localhost,IP:127.0.0.1 30
sign wrong DNS:other.example 30
sign user DNS:user 30
openssl req -x509 -new -key key.pem -days 30 -subj "/CN=localhost" -addext "subjectAltName=DNS:localhost" -out self.pem
mkdir -p ca
: > ca/index.txt
printf '01\n' > ca/serial
cat > ca.cnf <<'END'
[ca]
default_ca = d
[d]
dir = ca
database = ca/index.txt
serial = ca/serial
new_certs_dir = ca
default_md = sha256
policy = p
[p]
commonName = supplied
END
openssl req -new -key key.pem -subj "/CN=expired" -out expired.csr
printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' > expired.ext
openssl ca -batch -config ca.cnf -cert ca.pem -keyfile ca.key -startdate 20200101000000Z -enddate 20200201000000Z \
  -extfile expired.ext -in expired.csr -out expired.pem -notext
]]

local CONFIG = [[
%suser root;
worker_processes 1;
pid $DIR/pid;
error_log $DIR/error.log;
events { worker_connections 1000; }
http {
  access_log off;
  types { text/html html; text/plain txt; application/json json; }
  default_type application/octet-stream;
  client_body_temp_path $DIR/tmp1; proxy_temp_path $DIR/tmp2; fastcgi_temp_path $DIR/tmp3;
  uwsgi_temp_path $DIR/tmp4; scgi_temp_path $DIR/tmp5;
  client_max_body_size 1g;
  keepalive_requests 100000;
  root $DIR/www;
  server {
    listen 127.0.0.1:$http; listen unix:$DIR/socket;
    location / { etag on; }
    location /zip/ { alias $DIR/www/; gzip on; gzip_types *; gzip_min_length 1; }
    location /status/404 { return 404 "not here\n"; }
    location /status/503 { return 503; }
    location /moved { return 301 /hello.txt; }
    location /loop { return 302 /loop; }
    location /up/ { alias $DIR/www/up/; dav_methods PUT DELETE; create_full_put_path on; }
    location /private { auth_basic "specs"; auth_basic_user_file $DIR/users; alias $DIR/www/hello.txt; }
  }
  server {
    listen 127.0.0.1:$tls ssl http2; ssl_certificate $DIR/good.pem; ssl_certificate_key $DIR/key.pem;
    location /down { return 302 http://localhost:$http/hello.txt; }
    location /zip/ { alias $DIR/www/; gzip on; gzip_types *; gzip_min_length 1; }
  }
  server { listen 127.0.0.1:$wrong ssl; ssl_certificate $DIR/wrong.pem; ssl_certificate_key $DIR/key.pem; }
  server { listen 127.0.0.1:$expired ssl; ssl_certificate $DIR/expired.pem; ssl_certificate_key $DIR/key.pem; }
  server { listen 127.0.0.1:$selfsigned ssl; ssl_certificate $DIR/self.pem; ssl_certificate_key $DIR/key.pem; }
  server {
    listen 127.0.0.1:$mutual ssl; ssl_certificate $DIR/good.pem; ssl_certificate_key $DIR/key.pem;
    ssl_client_certificate $DIR/ca.pem; ssl_verify_client on;
    location / { return 200 $ssl_client_s_dn; }
  }
  server { listen 127.0.0.1:$plain2 http2; }
}
]]

local PORTS = { "http", "tls", "wrong", "expired", "selfsigned", "mutual", "plain2" }

local function free_ports(n)
  local servers, ports = {}, {}
  for i = 1, n do
    servers[i] = await(net.listen("127.0.0.1", 0))
    ports[i] = servers[i]:sockname().port
  end
  for i = 1, n do
    await(servers[i]:close())
  end
  return ports
end

---@class spec.nginx
---@field dir string  with ca.pem, key.pem, user.pem and the certificates
---@field socket string  path of a Unix socket
---@field http integer  a port; likewise `tls` (HTTP/2), `wrong`, `expired`, `selfsigned`, `mutual`, `plain2`

--- Starts it. Files of `www` (name -> contents) are served.
---@param www table<string, string>
---@return spec.nginx
function nginx.start(www)
  local dir = shell("mktemp -d /tmp/nginx.XXXXXX"):match("^%S+")
  shell(CERTIFICATES:format(q(dir)))
  shell(("cd %s && mkdir -p www/up && printf 'ann:%%s\\n' \"$(openssl passwd -apr1 secret)\" > users"):format(q(dir)))
  for name, text in pairs(www) do
    local f = assert(io.open(dir .. "/www/" .. name, "wb"))
    assert(f:write(text))
    f:close()
  end
  local self = setmetatable({ dir = dir, socket = dir .. "/socket" }, { __index = nginx })
  for i, port in ipairs(free_ports(#PORTS)) do
    self[PORTS[i]] = port
  end
  local root = shell("id -u"):match("%d+") == "0"
  local text = CONFIG:format(root and "" or "#"):gsub("%$(%w+)", function(name)
    return name == "DIR" and dir or self[name] and tostring(self[name]) or nil
  end)
  local f = assert(io.open(dir .. "/nginx.conf", "w"))
  assert(f:write(text))
  f:close()
  shell(("PATH=$PATH:/usr/sbin nginx -p %s -c %s/nginx.conf -e %s/error.log"):format(q(dir), q(dir), q(dir)))
  return self
end

function nginx:url(path, kind)
  kind = kind or "http"
  local secure = kind ~= "http" and kind ~= "plain2"
  return ("%s://localhost:%d/%s"):format(secure and "https" or "http", self[kind], path)
end

function nginx:stop()
  child.shell(("kill -TERM $(cat %s/pid); for i in $(seq 200); do [ -e %s/pid ] || break; sleep 0.02; done; rm -rf %s")
    :format(q(self.dir), q(self.dir), q(self.dir)))
end

return nginx
