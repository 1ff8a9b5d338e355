-- read: up to ARGV[3] entries, or ARGV[4] bytes and one entry, of the stream KEYS[1] for consumer ARGV[2] of group
-- ARGV[1]. One by one, because COUNT knows no bytes.
local entries, bytes = {}, 0
while #entries < tonumber(ARGV[3]) and bytes < tonumber(ARGV[4]) do
    local found = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', 1, 'STREAMS', KEYS[1], '>')
    if not found then
        break
    end
    local entry = found[1][2][1]
    for _, text in ipairs(entry[2] or {}) do
        bytes = bytes + #text
    end
    entries[#entries + 1] = entry
end
return entries
