-- Each job's status for those who poll, with a life time, and dead letters to the end of the list KEYS[1].
-- ARGV: the life time in seconds, how many dead letters are kept; then for each job its job_id, status, number of
-- attempts, and its dead letter or an empty text.
local now = redis.call('TIME')
local updated_at = now[1] .. '.' .. string.format('%06d', now[2])
local is_dead = false
for at = 3, #ARGV, 4 do
    local key = 'email:job:' .. ARGV[at]
    local known = tonumber(redis.call('HGET', key, 'attempts') or 0) or 0
    -- A slow worker's news of an earlier attempt are old.
    if known <= tonumber(ARGV[at + 2]) then
        redis.call('HSET', key, 'status', ARGV[at + 1], 'attempts', ARGV[at + 2], 'updated_at', updated_at)
        redis.call('EXPIRE', key, ARGV[1])
    end
    if ARGV[at + 3] ~= '' then
        redis.call('RPUSH', KEYS[1], ARGV[at + 3])
        is_dead = true
    end
end
if is_dead then
    redis.call('LTRIM', KEYS[1], -tonumber(ARGV[2]), -1)
end
return 0
