-- take: move up to ARGV[1] messages from the list KEYS[1] to the taker's own list KEYS[2], known in the set KEYS[3].
local messages = redis.call('LPOP', KEYS[1], ARGV[1])
if not messages then
    return 0
end
redis.call('SADD', KEYS[3], KEYS[2])
for first = 1, #messages, 1000 do
    redis.call('RPUSH', KEYS[2], unpack(messages, first, math.min(first + 999, #messages)))
end
return #messages
