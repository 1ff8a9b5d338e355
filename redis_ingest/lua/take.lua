-- take: move up to ARGV[1] messages, or ARGV[2] bytes and one message, from the list KEYS[1] to the taker's own list
-- KEYS[2], known in the set KEYS[3].
local taken, bytes = 0, 0
while taken < tonumber(ARGV[1]) and bytes < tonumber(ARGV[2]) do
    local message = redis.call('LPOP', KEYS[1])
    if not message then
        break
    end
    if taken == 0 then
        redis.call('SADD', KEYS[3], KEYS[2])
    end
    redis.call('RPUSH', KEYS[2], message)
    taken = taken + 1
    bytes = bytes + #message
end
return taken
