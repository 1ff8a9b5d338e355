-- take_over: rename the list KEYS[1] of an owner without a heartbeat (KEYS[2]) to KEYS[3], in the set KEYS[4].
-- An owner that comes back finds its list gone, and cannot delete what is another's now.
if redis.call('EXISTS', KEYS[2]) == 1 then
    return 0
end
redis.call('SREM', KEYS[4], KEYS[1])
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 0
end
redis.call('RENAME', KEYS[1], KEYS[3])
redis.call('SADD', KEYS[4], KEYS[3])
return redis.call('LLEN', KEYS[3])
