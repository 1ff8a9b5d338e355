-- Token buckets in Redis: the rules of worker/buckets.py, in the same words.
-- KEYS: what says which epoch this Redis keeps, then a bucket each. ARGV: the epoch, its age, the share that bulk leaves,
-- the time or an empty text, then for each bucket its interval and burst, then for each question its kind, count, whether
-- it is bulk, whether it has a turn, how long ago its tokens were taken, how many buckets it asks, and their places in
-- KEYS.
-- Returns for each question the tokens and the seconds to wait. All times are seconds since 1970.
local IDLE, HELD_BACK, HALF_LIFE, SLOWEST, SLOW_AGAIN = 1, 5, 30, 16, 1

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
    local kept = redis.call(
        'HMGET', key, 'used', 'transactional_line', 'bulk_line', 'transactional_turns', 'bulk_turns', 'slowness',
        'slowed_at'
    )
    local bucket = {
        interval = interval,
        burst = burst,
        used = tonumber(kept[1] or 0),
        transactional_line = tonumber(kept[2] or 0),
        bulk_line = tonumber(kept[3] or 0),
        transactional_turns = tonumber(kept[4] or 0),
        bulk_turns = tonumber(kept[5] or 0),
        slowness = tonumber(kept[6] or 1),
        slowed_at = tonumber(kept[7] or 0),
    }
    if interval > 0 then
        bucket.used = math.max(bucket.used, now - age + math.min(burst * interval, HELD_BACK))
        pace(bucket)
        if bucket.used < now - bucket.step - IDLE then
            bucket.transactional_line, bucket.bulk_line = 0, 0
            bucket.transactional_turns, bucket.bulk_turns = 0, 0
        end
    end
    return bucket
end

local function place(bucket, is_bulk)
    local behind = math.max(bucket.used, bucket.transactional_line, bucket.transactional_turns)
    return is_bulk and math.max(behind, bucket.bulk_line, bucket.bulk_turns) or behind
end

local function slack(bucket, is_bulk)
    return math.max(0, (bucket.burst - 1 - (is_bulk and share * bucket.burst or 0)) * bucket.interval)
end

local function from_place(bucket, at, count, is_bulk)
    local early = slack(bucket, is_bulk)
    return at + math.min((count - 1) * bucket.interval, early) - early - now
end

local function wait(bucket, count, is_bulk, has_turn)
    return from_place(bucket, has_turn and bucket.used or place(bucket, is_bulk), count, is_bulk)
end

local function wait_again(bucket, count, is_bulk)
    bucket.is_changed = true
    local at = math.max(bucket.used, bucket.transactional_turns)
    if is_bulk then
        at = math.max(at, bucket.bulk_turns)
        bucket.bulk_turns = at + count * bucket.step
    else
        bucket.transactional_turns = at + count * bucket.step
    end
    return from_place(bucket, at, count, is_bulk)
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

function answers.give(asked, count, is_bulk, _, ago)
    local bucket = asked[1]
    bucket.is_changed = true
    if bucket.interval == 0 then
        bucket.used = bucket.used - count
        return 0, 0
    end
    local seconds = count * bucket.interval
    if seconds > 0 then
        seconds = math.max(0, seconds - ago)
    end
    bucket.used = bucket.used - seconds
    local nearest = math.max(bucket.used, now)
    if not is_bulk and bucket.transactional_line > nearest then
        bucket.transactional_line = math.max(nearest, bucket.transactional_line - seconds)
    end
    if bucket.bulk_line > nearest then
        bucket.bulk_line = math.max(nearest, bucket.bulk_line - seconds)
    end
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

function answers.mail(asked, count, is_bulk, has_turn)
    local waits, longest = {}, 0
    for i, bucket in ipairs(asked) do
        waits[i] = 0
        if bucket.interval > 0 then
            waits[i] = wait(bucket, count, is_bulk, has_turn)
        elseif bucket.burst == 0 or bucket.used + math.min(count, bucket.burst) > bucket.burst then
            return 0, -1
        end
        longest = math.max(longest, waits[i])
    end
    local tokens = longest <= 0 and count or 0
    for i, bucket in ipairs(asked) do
        if tokens > 0 then
            take(bucket, count, is_bulk, has_turn)
        elseif waits[i] > 0 and has_turn then
            longest = math.max(longest, wait_again(bucket, count, is_bulk))
        elseif waits[i] > 0 then
            stand_in_line(bucket, count, is_bulk)
        end
    end
    return tokens, longest
end

local buckets, at = {}, 5
for i = 2, #KEYS do
    buckets[i] = load(KEYS[i], tonumber(ARGV[at]), tonumber(ARGV[at + 1]))
    at = at + 2
end
local found = {}
while at <= #ARGV do
    local asked = {}
    for i = 1, tonumber(ARGV[at + 5]) do
        asked[i] = buckets[tonumber(ARGV[at + 5 + i])]
    end
    local count, is_bulk, has_turn = tonumber(ARGV[at + 1]), ARGV[at + 2] == '1', ARGV[at + 3] == '1'
    local tokens, seconds = answers[ARGV[at]](asked, count, is_bulk, has_turn, tonumber(ARGV[at + 4]))
    found[#found + 1] = tokens
    found[#found + 1] = string.format('%.17g', seconds)
    at = at + 6 + #asked
end

local function save(key, bucket)
    local function text(value)
        return string.format('%.17g', value)
    end
    redis.call(
        'HSET', key, 'used', text(bucket.used), 'transactional_line', text(bucket.transactional_line),
        'bulk_line', text(bucket.bulk_line), 'transactional_turns', text(bucket.transactional_turns), 'bulk_turns',
        text(bucket.bulk_turns), 'slowness', text(bucket.slowness), 'slowed_at', text(bucket.slowed_at)
    )
    -- As long as it can still matter: a day's ceiling, a bucket that is not full, one that recovers.
    local matters = 172800
    if bucket.interval > 0 then
        matters = math.max(
            bucket.used, bucket.transactional_line, bucket.bulk_line, bucket.transactional_turns, bucket.bulk_turns,
            bucket.slowed_at + 300
        ) - now + IDLE
    end
    redis.call('PEXPIRE', key, math.max(1000, math.ceil(matters * 1000)))
end

for i = 2, #KEYS do
    if buckets[i].is_changed then
        save(KEYS[i], buckets[i])
    end
end
return found
