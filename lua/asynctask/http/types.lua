-- types.lua - the media type of a file, by the end of its name (IANA's registry, RFC 9239 for JavaScript). Data and one
-- function.

local M = {}

local types = {
  -- text
  html = "text/html", htm = "text/html", xhtml = "application/xhtml+xml", css = "text/css", js = "text/javascript",
  mjs = "text/javascript", txt = "text/plain", text = "text/plain", log = "text/plain", md = "text/markdown",
  csv = "text/csv", tsv = "text/tab-separated-values", ics = "text/calendar", vcf = "text/vcard", vtt = "text/vtt",
  lua = "text/plain", c = "text/plain", h = "text/plain", xml = "application/xml", xsl = "application/xslt+xml",
  atom = "application/atom+xml", rss = "application/rss+xml", json = "application/json", map = "application/json",
  jsonld = "application/ld+json", geojson = "application/geo+json", webmanifest = "application/manifest+json",
  yaml = "application/yaml", yml = "application/yaml", toml = "application/toml", sql = "application/sql",
  -- images
  png = "image/png", apng = "image/apng", jpg = "image/jpeg", jpeg = "image/jpeg", gif = "image/gif",
  webp = "image/webp", avif = "image/avif", jxl = "image/jxl", svg = "image/svg+xml", svgz = "image/svg+xml",
  ico = "image/vnd.microsoft.icon", bmp = "image/bmp", tif = "image/tiff", tiff = "image/tiff", heic = "image/heic",
  -- sound, film
  mp3 = "audio/mpeg", m4a = "audio/mp4", aac = "audio/aac", oga = "audio/ogg", ogg = "audio/ogg", opus = "audio/ogg",
  flac = "audio/flac", wav = "audio/wav", weba = "audio/webm", mid = "audio/midi", mp4 = "video/mp4",
  m4v = "video/mp4", webm = "video/webm", ogv = "video/ogg", mov = "video/quicktime", mpeg = "video/mpeg",
  mpg = "video/mpeg", avi = "video/x-msvideo", mkv = "video/matroska", m3u8 = "application/vnd.apple.mpegurl",
  ts = "video/mp2t", mpd = "application/dash+xml",
  -- fonts
  woff = "font/woff", woff2 = "font/woff2", ttf = "font/ttf", otf = "font/otf", ttc = "font/collection",
  eot = "application/vnd.ms-fontobject",
  -- documents, archives, programs
  pdf = "application/pdf", epub = "application/epub+zip", rtf = "application/rtf", ps = "application/postscript",
  doc = "application/msword", xls = "application/vnd.ms-excel", ppt = "application/vnd.ms-powerpoint",
  docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
  xlsx = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
  pptx = "application/vnd.openxmlformats-officedocument.presentationml.presentation",
  odt = "application/vnd.oasis.opendocument.text", ods = "application/vnd.oasis.opendocument.spreadsheet",
  odp = "application/vnd.oasis.opendocument.presentation", zip = "application/zip", gz = "application/gzip",
  tgz = "application/gzip", bz2 = "application/x-bzip2", xz = "application/x-xz", zst = "application/zstd",
  tar = "application/x-tar", jar = "application/java-archive", rar = "application/vnd.rar",
  ["7z"] = "application/x-7z-compressed", wasm = "application/wasm", sh = "application/x-sh",
  torrent = "application/x-bittorrent", bin = "application/octet-stream",
}

-- Beside text/*, what has a charset that has to be said.
local with_charset = { ["application/xml"] = true, ["application/xhtml+xml"] = true, ["image/svg+xml"] = true }

---The Content-Type for a path: text is said to be UTF-8; "application/octet-stream" for what is not known.
---@param path string
---@param more? table<string, string> types by ending ("html"), which go before those that are known
---@return string
function M.content_type(path, more)
  local ending = (path:match("%.([^./]+)$") or ""):lower()
  local own = more and more[ending]
  if own then
    return own
  end
  local found = types[ending] or "application/octet-stream"
  if found:find("^text/") or with_charset[found] then
    return found .. "; charset=utf-8"
  end
  return found
end

---Whether a body of the type gets smaller by compression.
---@param content_type string
---@return boolean
function M.compressible(content_type)
  local plain = content_type:match("^[^;]+")
  return plain:find("^text/") ~= nil or plain:find("[/+]xml$") ~= nil or plain:find("[/+]json$") ~= nil
    or plain == "application/wasm" or plain == "application/yaml" or plain == "font/ttf" or plain == "font/otf"
end

return M
