-- forget: remove the names of consumers of group ARGV[1] that hold nothing and were not seen for ARGV[2] milliseconds.
-- In one step, because a consumer that is removed loses what it has read and not acknowledged.
local forgotten = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local known = {}
    for at = 1, #consumer, 2 do
        known[consumer[at]] = consumer[at + 1]
    end
    if known['pending'] == 0 and known['idle'] > tonumber(ARGV[2]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], known['name'])
        forgotten = forgotten + 1
    end
end
return forgotten
