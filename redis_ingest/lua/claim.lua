-- claim: entries of the stream KEYS[1] that nobody in group ARGV[1] has acknowledged for ARGV[3] milliseconds, from ARGV[4]
-- on, for consumer ARGV[2]: up to ARGV[5], or ARGV[6] bytes and one entry. Returns where to go on, and the entries.
local entries, bytes, start = {}, 0, ARGV[4]
for _ = 1, tonumber(ARGV[5]) do
    local found = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], start, 'COUNT', 1)
    start = found[1]
    for _, entry in ipairs(found[2]) do
        for _, text in ipairs(entry[2] or {}) do
            bytes = bytes + #text
        end
        entries[#entries + 1] = entry
    end
    if start == '0-0' or bytes >= tonumber(ARGV[6]) then
        break
    end
end
return { start, entries }
