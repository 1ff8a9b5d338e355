-- Token buckets in Redis: the rules of worker/buckets.py, in the same words.
-- KEYS: what says which epoch this Redis keeps, then a bucket each. ARGV: the epoch, its age, the share that bulk leaves,
-- the time or an empty text, then for each bucket its interval and burst, then for each question its kind, count, whether
-- it is bulk, how late its turn is taken or -1, how many buckets it asks, and their places in KEYS.
-- Returns for each question the tokens and the seconds to wait. All times are seconds since 1970.
local TURN, HELD_BACK, HALF_LIFE, SLOWEST, SLOW_AGAIN = 1, 5, 30, 16, 1

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return redis.error_reply('EPOCH of the token buckets is another')
end
local age, share, now = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if not now then
    local time = redis.call('TIME')
    now = time[1] + time[2] / 1000000
end

local function pace(bucket)
    local recovered = 0.5 ^ ((now - bucket.slowed_at) / HALF_LIFE)
    bucket.step = bucket.interval * (1 + (bucket.slowness - 1) * recovered)
end

local function load(key, interval, burst)
    local kept = redis.call('HMGET', key, 'used', 'transactional_line', 'bulk_line', 'slowness', 'slowed_at')
    local bucket = {
        interval = interval,
        burst = burst,
        used = tonumber(kept[1] or 0),
        transactional_line = tonumber(kept[2] or 0),
        bulk_line = tonumber(kept[3] or 0),
        slowness = tonumber(kept[4] or 1),
        slowed_at = tonumber(kept[5] or 0),
    }
    if interval > 0 then
        bucket.used = math.max(bucket.used, now - age + math.min(burst * interval, HELD_BACK))
        pace(bucket)
    end
    return bucket
end

local function place(bucket, is_bulk)
    local behind = math.max(bucket.used, bucket.transactional_line)
    return is_bulk and math.max(behind, bucket.bulk_line) or behind
end

local function slack(bucket, is_bulk)
    return (bucket.burst - 1 - (is_bulk and share * bucket.burst or 0)) * bucket.interval
end

local function wait(bucket, count, is_bulk, has_turn)
    local at = has_turn and bucket.used or place(bucket, is_bulk)
    local early = slack(bucket, is_bulk)
    local others = math.min((count - 1) * bucket.interval, math.max(early, 0))
    return at + others - early - now
end

local function stand_in_line(bucket, count, is_bulk)
    bucket.is_changed = true
    local seconds = count * bucket.step
    local line_end = math.max(place(bucket, is_bulk), now) + seconds
    if is_bulk then
        bucket.bulk_line = line_end
        return
    end
    bucket.transactional_line = line_end
    if bucket.bulk_line > now then
        bucket.bulk_line = bucket.bulk_line + seconds
    end
end

local function move_lines(bucket, seconds, is_bulk)
    local taken = math.max(bucket.used, now)
    if not is_bulk and bucket.transactional_line > taken then
        bucket.transactional_line = bucket.transactional_line + seconds
    end
    if bucket.bulk_line > (is_bulk and taken or now) then
        bucket.bulk_line = bucket.bulk_line + seconds
    end
end

local function take(bucket, count, is_bulk, has_turn)
    bucket.is_changed = true
    if bucket.interval == 0 then
        bucket.used = bucket.used + count
        return
    end
    local seconds = count * bucket.step
    if not has_turn then
        move_lines(bucket, seconds, is_bulk)
    end
    bucket.used = math.max(bucket.used, now) + seconds
end

local answers = {}

function answers.take(asked, count, is_bulk)
    local bucket = asked[1]
    local seconds = wait(bucket, 1, is_bulk, false)
    if seconds > 0 then
        return 0, seconds
    end
    local free = now + slack(bucket, is_bulk) - math.max(place(bucket, is_bulk), now)
    local tokens = math.min(count, 1 + math.max(0, math.floor(free / bucket.step)))
    take(bucket, tokens, is_bulk, false)
    return tokens, 0
end

function answers.give(asked, count, is_bulk)
    local bucket = asked[1]
    bucket.is_changed = true
    local seconds = count
    if bucket.interval > 0 then
        seconds = count * bucket.interval
        move_lines(bucket, -seconds, is_bulk)
    end
    bucket.used = bucket.used - seconds
    return 0, 0
end

function answers.slow(asked)
    local bucket = asked[1]
    if now - bucket.slowed_at >= SLOW_AGAIN then
        bucket.is_changed = true
        bucket.slowness = math.min(2 * bucket.step / bucket.interval, SLOWEST)
        bucket.slowed_at = now
        pace(bucket)
        bucket.used = math.max(bucket.used, now + bucket.burst * bucket.interval)
    end
    return 0, 0
end

function answers.mail(asked, count, is_bulk, late)
    local has_turn = late >= 0 and late <= TURN
    local waits, longest = {}, 0
    for i, bucket in ipairs(asked) do
        waits[i] = 0
        if bucket.interval > 0 then
            waits[i] = wait(bucket, count, is_bulk, has_turn)
        elseif bucket.used + count > bucket.burst then
            return 0, -1
        end
        longest = math.max(longest, waits[i])
    end
    for i, bucket in ipairs(asked) do
        if longest <= 0 then
            take(bucket, count, is_bulk, has_turn)
        elseif waits[i] > 0 and not has_turn then
            stand_in_line(bucket, count, is_bulk)
        end
    end
    return longest <= 0 and count or 0, longest
end

local buckets, at = {}, 5
for i = 2, #KEYS do
    buckets[i] = load(KEYS[i], tonumber(ARGV[at]), tonumber(ARGV[at + 1]))
    at = at + 2
end
local found = {}
while at <= #ARGV do
    local asked = {}
    for i = 1, tonumber(ARGV[at + 4]) do
        asked[i] = buckets[tonumber(ARGV[at + 4 + i])]
    end
    local tokens, seconds = answers[ARGV[at]](asked, tonumber(ARGV[at + 1]), ARGV[at + 2] == '1', tonumber(ARGV[at + 3]))
    found[#found + 1] = tokens
    found[#found + 1] = string.format('%.17g', seconds)
    at = at + 5 + #asked
end

local function save(key, bucket)
    local function text(value)
        return string.format('%.17g', value)
    end
    redis.call(
        'HSET', key, 'used', text(bucket.used), 'transactional_line', text(bucket.transactional_line),
        'bulk_line', text(bucket.bulk_line), 'slowness', text(bucket.slowness), 'slowed_at', text(bucket.slowed_at)
    )
    -- As long as it can still matter: a day's ceiling, a bucket that is not full, one that recovers.
    local matters = 172800
    if bucket.interval > 0 then
        matters = math.max(bucket.used, bucket.transactional_line, bucket.bulk_line, bucket.slowed_at + 300) - now + 1
    end
    redis.call('PEXPIRE', key, math.max(1000, math.ceil(matters * 1000)))
end

for i = 2, #KEYS do
    if buckets[i].is_changed then
        save(KEYS[i], buckets[i])
    end
end
return found
